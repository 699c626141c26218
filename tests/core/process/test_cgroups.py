"""Finding control groups and describing a job's; that they hold a job is tested with the keeper."""

import errno
import os
import signal
from pathlib import Path

import pytest

from tandem.core.process import cgroups
from tandem.core.process.cgroups import Layout, Shares
from tandem.core.process.spec import CgroupStep, Spec
from tests.core.process.attempts import ENV, Launch, is_running, number_in
from tests.waiting import until


def tree(folder: Path, *, controllers: str, enabled: str, kind: str | None) -> Path:
    """A directory that looks like a group of version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"cgroup.procs": "", "cgroup.controllers": controllers, "cgroup.subtree_control": enabled}
    for name, text in {**files, **({"cgroup.type": kind} if kind else {})}.items():
        (folder / name).write_text(text)
    return folder


def discover(tmp_path: Path, mounts: list[str], own: list[str]) -> Layout:
    (tmp_path / "mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in own))
    return cgroups.discover(mountinfo=tmp_path / "mountinfo", own=tmp_path / "cgroup")


def test_version_2_at_the_topmost_writable_group(tmp_path: Path) -> None:
    top = tree(tmp_path / "v2", controllers="cpu io memory cpuset", enabled="", kind=None)
    tree(top / "a.slice", controllers="cpu memory", enabled="", kind="domain")
    layout = discover(tmp_path, [f"30 20 0:26 / {top} rw - cgroup2 cgroup2 rw"], ["0::/a.slice"])
    assert layout == Layout(v2=top, v2_controllers=frozenset({"cpu", "cpuset", "memory"}))
    assert layout.kind == "v2"
    made = cgroups.steps(layout, "k", Shares(cores=(0, 3), memory_bytes=1024, cpu_weight=50))
    assert [(step.kind, step.path.removeprefix(str(top)), step.value) for step in made] == [
        ("try", "/cgroup.subtree_control", "+cpu"),
        ("try", "/cgroup.subtree_control", "+cpuset"),
        ("try", "/cgroup.subtree_control", "+memory"),
        ("parent", "/tandem", ""),
        ("try", "/tandem/cgroup.subtree_control", "+cpu"),
        ("try", "/tandem/cgroup.subtree_control", "+cpuset"),
        ("try", "/tandem/cgroup.subtree_control", "+memory"),
        ("enter", "/tandem/k", ""),
        ("write", "/tandem/k/cpuset.cpus", "0,3"),
        ("try", "/tandem/k/cpu.weight", "50"),
        ("write", "/tandem/k/memory.max", "1024"),
        ("try", "/tandem/k/memory.swap.max", "0"),
    ]
    assert "cgroups v2 (cpu, cpuset, memory)" in cgroups.which(layout)


def test_a_container_whose_top_group_holds_processes_only_freezes_and_kills(tmp_path: Path) -> None:
    top = tree(tmp_path / "v2", controllers="cpu memory", enabled="", kind="domain")
    (top / "cgroup.procs").write_text("1\n")
    layout = discover(tmp_path, [f"30 20 0:26 /../../.. {top} rw - cgroup2 cgroup2 rw"], ["0::/"])
    assert (layout.v2, layout.v2_controllers) == (top, frozenset())
    assert "memory is not limited" in cgroups.which(layout)


def test_version_1_below_the_schedulers_own_group(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "freezer"):
        tree(tmp_path / name / "box", controllers="", enabled="", kind=None)
    mounts = [
        f"31 20 0:27 / {tmp_path}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        f"32 20 0:28 /docker/1 {tmp_path}/memory rw - cgroup cgroup rw,memory",
        f"33 20 0:29 / {tmp_path}/freezer rw - cgroup cgroup rw,freezer",
        f"34 20 0:30 / {tmp_path}/pids rw - cgroup cgroup rw,pids",
    ]
    layout = discover(tmp_path, mounts, ["3:cpu,cpuacct:/box", "2:memory:/docker/1/box", "1:freezer:/box", "4:pids:/"])
    assert layout == Layout(
        v1={
            "cpu": tmp_path / "cpu,cpuacct/box",
            "memory": tmp_path / "memory/box",
            "freezer": tmp_path / "freezer/box",
        }
    )
    assert layout.kind == "v1"
    assert "the v1 freezer" in cgroups.which(layout)


def test_a_machine_without_groups_says_what_it_does_instead(tmp_path: Path) -> None:
    layout = discover(tmp_path, ["30 20 0:26 / /proc rw - proc proc rw"], ["0::/"])
    assert layout.kind == "none"
    assert cgroups.steps(layout, "k", Shares(cores=(0,), memory_bytes=1)) == ()
    assert "pinned by CPU affinity" in cgroups.which(layout)


def test_what_a_killed_keeper_left_is_removed_and_nothing_else(launch: Launch, layout: Layout, tmp_path: Path) -> None:
    first = launch("sh", "-c", f"setsid sleep 1000 & echo $! > {tmp_path}/child; wait", layout=layout)
    second = launch("sleep", "1000", layout=layout)
    child = number_in(tmp_path / "child")
    second.message("started")
    first.command("suspend")
    assert first.keeper.pid is not None
    os.kill(first.keeper.pid, signal.SIGKILL)
    first.end()
    names = [first.folder.name] if layout.kind != "none" else []
    assert cgroups.remove_stale(layout, "test.", {second.folder.name}) == names
    if names:
        until(lambda: not is_running(child), "the child in the group to be killed")
    else:
        os.kill(child, signal.SIGKILL)
    assert is_running(second.pid)


def test_a_group_that_its_keeper_removes_at_that_moment_is_no_error(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, seen = f"test.late.{os.getpid()}", 0
    for parent in layout.parents():
        (parent / key).mkdir(parents=True)

    def kill(group: Path) -> None:
        nonlocal seen
        seen += 1
        if seen > len(layout.parents()):  # all were looked at once: now each vanishes between a look and the next
            group.rmdir()

    monkeypatch.setattr(cgroups, "_kill_members", kill)
    assert cgroups.remove_stale(layout, key, ()) == ([key] if layout.parents() else [])


@pytest.mark.parametrize("cores", [(), (0,)])
def test_two_groups_of_one_parent(launch: Launch, layout: Layout, cores: tuple[int, ...]) -> None:
    """The parent goes with its last group; a group made at that moment is made all the same."""
    attempts = [launch("true", layout=layout, shares=Shares(cores=cores)) for _ in range(30)]
    assert [attempt.end().exit_code for attempt in attempts] == [0] * 30
    own = {attempt.folder.name for attempt in attempts}
    assert not [group for parent in layout.parents() for group in parent.glob("*") if group.name in own]


def test_a_step_that_fails_for_a_moment_is_done_again(launch: Launch, tmp_path: Path) -> None:
    """As where the parent is removed between the opening of its file and the writing: ENODEV, seen under load."""
    gate, target = tmp_path / "gate", tmp_path / "target"
    os.mkfifo(gate)
    target.mkdir()  # nothing can be written to a folder
    steps = [CgroupStep(kind="write", path=str(path), value="x") for path in (gate, target)]
    attempt = launch(spec=Spec(argv=("true",), env=ENV, cgroup=tuple(steps)))
    for _ in range(2):  # the keeper comes to the gate again because of the target
        assert set(gate.read_text()) == {"x"}
    target.rmdir()
    target.touch()
    opened = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert attempt.end().exit_code == 0
    finally:
        os.close(opened)
    assert target.read_text() == "x"


def test_a_step_that_always_fails_is_told(launch: Launch, tmp_path: Path) -> None:
    step = CgroupStep(kind="write", path=str(tmp_path), value="x")
    fate = launch(spec=Spec(argv=("true",), env=ENV, cgroup=(step,))).end()
    assert fate.exec_error == (errno.EISDIR, f"cannot prepare the cgroup '{tmp_path}': Is a directory")
