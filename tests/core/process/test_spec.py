"""Whatever text a job is described with reaches its keeper unharmed, or is refused clearly."""

import os
import signal
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.process.spec import ByteRange, CgroupStep, JobSpecError, Limits, Locks, Output, Spec, TimeLimit, User
from tests.core.process.attempts import Launch

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
WORDS = st.lists(TEXT, min_size=1, max_size=5).filter(lambda words: bool(words[0]))
ENVIRONMENT = st.dictionaries(TEXT.filter(lambda name: name and "=" not in name), TEXT, max_size=5)


def fields(data: bytes) -> list[tuple[str, str]]:
    """Read a spec independently of the code under test."""
    assert data.endswith(b"\0")
    pairs = (field.partition(b"=") for field in data[:-1].split(b"\0"))
    return [(key.decode(), os.fsdecode(value)) for key, _, value in pairs]


@given(WORDS, ENVIRONMENT)
def test_every_text_comes_through(argv: list[str], env: dict[str, str]) -> None:
    found = fields(Spec(argv=tuple(argv), env=env).to_bytes())
    assert [value for key, value in found if key == "argv"] == argv
    assert dict(value.split("=", 1) for key, value in found if key == "env") == env


def test_every_key() -> None:
    spec = Spec(
        argv=("a",),
        env={},
        cwd="/x",
        output=Output(stdout="/o", stderr="/e", open_as_user=True, stdout_by_umask=True),
        user=User(uid=1, gid=2, groups=(3, 4)),
        cores=(0, 3),
        locks=Locks(core_file="/l/cores", ranges=(ByteRange(path="/l/gpus", first=100, count=50),)),
        cgroup=(
            CgroupStep(kind="parent", path="/p"),
            CgroupStep(kind="enter", path="/p/k"),
            CgroupStep(kind="write", path="/p/k/f", value="1 2"),
            CgroupStep(kind="try", path="/p/k/g", value="a=b"),
        ),
        limits=Limits(nice=5, umask=0o22, rlimits={7: (1, -1)}),
        time_limit=TimeLimit(run_s=1.5, grace_s=0.25, checkpoint="SIGUSR1"),
    )
    assert fields(spec.to_bytes()) == [
        ("argv", "a"),
        ("cwd", "/x"),
        ("stdout", "/o"),
        ("stderr", "/e"),
        ("open_as_user", "1"),
        ("stdout_by_umask", "1"),
        ("uid", "1"),
        ("gid", "2"),
        ("groups", "3,4"),
        ("cores", "0,3"),
        ("core_lock", "/l/cores"),
        ("lock", "/l/gpus:100+50"),
        ("cgroup_parent", "/p"),
        ("cgroup", "/p/k"),
        ("write", "/p/k/f=1 2"),
        ("try", "/p/k/g=a=b"),
        ("nice", "5"),
        ("umask", "18"),
        ("rlimit", "7:1:-1"),
        ("time_limit", f"1500:250:{signal.SIGUSR1:d}"),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"argv": ()}, "a job without a program"),
        ({"argv": ("",)}, "a job without a program"),
        ({"argv": ("a", "b\0c")}, "remove the NUL byte"),
        ({"env": {"A": "b\0c"}}, "remove the NUL byte"),
        ({"env": {"A=B": "c"}}, "a name without '='"),
        ({"argv": ("\ud800",)}, "remove the lone surrogate"),
    ],
)
def test_what_no_program_can_receive_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(JobSpecError, match=said) as caught:
        replace(Spec(argv=("true",)), **change).to_bytes()  # type: ignore[arg-type]
    assert "\0" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_bytes_that_are_no_text_come_through(launch: Launch, tmp_path: os.PathLike[str]) -> None:
    """A file name in an old encoding, as Python holds it (surrogateescape)."""
    name = os.fsdecode(b"caf\xe9")
    out = f"{os.fspath(tmp_path)}/o"
    spec = Spec(argv=("printf", "%s", name), env={"PATH": os.environ["PATH"]}, output=Output(stdout=out))
    assert launch(spec=spec).end().exit_code == 0
    with open(out, "rb") as file:  # noqa: PTH123 - the folder may be any path
        assert file.read() == b"caf\xe9"
