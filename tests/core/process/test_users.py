"""Jobs of other users: what they lose, and what they cannot reach."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tandem.core.process import journal
from tandem.core.process import keeper as keepers
from tandem.core.process.spec import Output, Spec, User
from tests.core.process.attempts import ENV, Attempt, cpu_s, is_running, number_in, observe
from tests.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="requires root: to become another user")
UID = 12345
Start = Callable[..., Attempt]


@pytest.fixture
def public(native: Path) -> Iterator[Path]:
    """A folder that every user can enter, with a keeper in it."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    folder.chmod(0o755)
    shutil.copy(native, folder / "tandem-keeper")
    yield folder
    shutil.rmtree(folder)


def as_user(folder: Path) -> tuple[str, ...]:
    setpriv = shutil.which("setpriv") or "setpriv"
    return (setpriv, f"--reuid={UID}", f"--regid={UID}", "--clear-groups", str(folder / "tandem-keeper"))


@pytest.fixture
def start(public: Path) -> Iterator[Start]:
    """Start an attempt, under root's keeper or (`user=True`) under one of an ordinary user."""
    attempts: list[Attempt] = []

    def one(spec: Spec, folder: Path, *, user: bool) -> Attempt:
        keepers.prepare(spec, folder)
        if user:
            for path in (folder, folder / "spec"):
                os.chown(path, UID, UID)
        command = as_user(public) if user else (str(public / "tandem-keeper"),)
        attempts.append(Attempt(keepers.start(folder, command=command), folder))
        return attempts[-1]

    yield one
    for attempt in attempts:
        attempt.kill()


def test_a_root_keeper_drops_everything(start: Start, public: Path) -> None:
    script = "id -u; id -g; id -G; grep -E '^(Cap(Inh|Prm|Eff|Amb)|Uid|Gid)' /proc/self/status"
    out = public / "out"
    user = User(uid=UID, gid=UID + 1, groups=(UID + 2, UID + 3))
    spec = Spec(argv=("sh", "-c", script), env=ENV, user=user, output=Output(stdout=str(out)))
    attempt = start(spec, public / "a", user=False)
    assert attempt.end().exit_code == 0
    lines = out.read_text().splitlines()
    assert lines[:2] == [str(UID), str(UID + 1)]
    assert set(lines[2].split()) == {str(UID + 1), str(UID + 2), str(UID + 3)}
    status = dict(line.split(":\t", 1) for line in lines[3:])
    assert set(status["Uid"].split()) == {str(UID)}
    assert set(status["Gid"].split()) == {str(UID + 1)}
    assert {int(value, 16) for name, value in status.items() if name.startswith("Cap")} == {0}
    assert (out.stat().st_uid, out.stat().st_gid, out.stat().st_mode & 0o777) == (UID, UID + 1, 0o600)


def test_without_groups_the_job_has_none(start: Start, public: Path) -> None:
    spec = Spec(argv=("id", "-G"), env=ENV, user=User(uid=UID, gid=UID), output=Output(stdout=str(public / "out")))
    assert start(spec, public / "a", user=False).end().exit_code == 0
    assert (public / "out").read_text() == f"{UID}\n"


def test_the_job_cannot_reach_its_keepers_files(start: Start, public: Path) -> None:
    folder = public / "a"
    reading = f"ls {folder}; cat {folder}/journal; cat {folder}/ctl; echo x > {folder}/spec"
    script = f"{reading}; kill -9 $PPID; kill -9 {os.getpid()}"
    spec = Spec(
        argv=("sh", "-c", f"{script}; exit 5"),
        env=ENV,
        user=User(uid=UID, gid=UID),
        output=Output(stdout=str(public / "out"), stderr=str(public / "err")),
    )
    attempt = start(spec, folder, user=False)
    assert attempt.end().exit_code == 5
    assert (public / "out").read_text() == ""
    said = (public / "err").read_text()
    assert said.lower().count("permission denied") == 4
    assert said.lower().count("not permitted") == 2


def test_another_user_cannot_command_a_keeper(start: Start, public: Path) -> None:
    """Even where the directory lets him in and the socket's mode is opened, the peer is checked."""
    attempt = start(Spec(argv=("sleep", "1000"), env=ENV), public / "a", user=False)
    attempt.message("started")
    (public / "a").chmod(0o755)
    (public / "a" / "ctl").chmod(0o666)
    child = os.fork()
    if child == 0:
        os.setresuid(UID, UID, UID)
        intruder = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        intruder.settimeout(20)
        try:
            intruder.connect(f"{public}/a/ctl")
            intruder.send(b"kill")
            answer = intruder.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        os._exit(0 if answer == b"" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert attempt.command("ping").kind == "ok"
    assert journal.state(attempt.folder) == "running"


def test_a_root_keeper_writes_no_output_into_anothers_file(start: Start, public: Path) -> None:
    theirs = public / "theirs"
    theirs.write_text("precious")
    os.chown(theirs, UID + 7, UID + 7)
    spec = Spec(argv=("echo", "x"), env=ENV, user=User(uid=UID, gid=UID), output=Output(stdout=str(theirs)))
    fate = start(spec, public / "a", user=False).end()
    assert fate.exec_error is not None
    assert fate.exec_error[0] == 1
    assert theirs.read_text() == "precious"
    secret = Output(stdout=str(public / "new"), open_as_user=True)  # the user has no right to make files here
    fate = start(
        Spec(argv=("echo", "x"), env=ENV, user=User(uid=UID, gid=UID), output=secret), public / "b", user=False
    ).end()
    assert fate.exec_error is not None
    assert fate.exec_error[0] == 13
    assert not (public / "new").exists()


def test_an_ordinary_user_keeps_jobs_too(start: Start, public: Path) -> None:
    folder = public / "a"
    work = public / "work"
    work.mkdir()
    os.chown(work, UID, UID)
    script = f"(setsid sh -c 'echo $$ > {work}/inner; while :; do :; done' &) ; while :; do :; done"
    attempt = start(Spec(argv=("sh", "-c", script), env=ENV, cores=(0,)), folder, user=True)
    inner = number_in(work / "inner")
    until(lambda: cpu_s(inner) > 0.02, "the job to run")
    assert Path(f"/proc/{inner}").stat().st_uid == UID
    for command in ("throttle 0.5", "suspend"):
        assert attempt.command(command).kind == "ok"
    before = [cpu_s(attempt.pid), cpu_s(inner)]
    observe(lambda: None, 0.2)
    assert [cpu_s(attempt.pid), cpu_s(inner)] == before
    for command in ("resume", "pin 0", "kill"):
        assert attempt.command(command).kind == "ok"
    assert attempt.end().signal == 9
    assert not Path(f"/proc/{inner}").exists()


def test_an_ordinary_user_cannot_run_a_job_as_another(start: Start, public: Path) -> None:
    attempt = start(Spec(argv=("true",), env=ENV, user=User(uid=0, gid=0)), public / "a", user=True)
    fate = attempt.end()
    assert fate.exec_error is not None
    assert fate.exec_error[0] == 1
    assert "cannot become group" in fate.exec_error[1]


def test_a_killed_keeper_takes_a_job_of_another_user_with_it(start: Start, public: Path) -> None:
    """The parent-death signal is set after the change of user, which would clear it."""
    attempt = start(Spec(argv=("sleep", "1000"), env=ENV, user=User(uid=UID, gid=UID)), public / "a", user=False)
    attempt.message("started")
    assert attempt.keeper.pid is not None
    os.kill(attempt.keeper.pid, 9)
    attempt.end()
    until(lambda: not is_running(attempt.pid), "the job to end")
