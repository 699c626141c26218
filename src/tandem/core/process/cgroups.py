"""Which control groups this user can make, and the steps by which a keeper makes a job's.

Found are: version 2 (one tree), version 1 (one tree per controller), both side by side (`hybrid`: limits by version 1,
freezing and killing by version 2), or none, in which case jobs are held by CPU affinity and signals alone. In version 1
the groups lie below the scheduler's own, so that its own limits bind its jobs; version 2 forbids that, so there they
lie below the topmost group that this user may write.
"""

import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tandem.core.process.spec import CgroupStep

PARENT_NAME: Final = "tandem"
_V1_CONTROLLERS = ("cpu", "cpuset", "memory", "freezer")
_V2_CONTROLLERS = ("cpu", "cpuset", "memory")
_REMOVAL_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where groups can be made.

    Attributes:
        v1: Controller of version 1 -> the group below which `tandem` is made.
        v2: The group of version 2 below which `tandem` is made, if any.
        v2_controllers: The controllers that can be used there.
    """

    v1: Mapping[str, Path] = field(default_factory=dict)
    v2: Path | None = None
    v2_controllers: frozenset[str] = frozenset()

    @property
    def kind(self) -> Literal["v2", "v1", "hybrid", "none"]:
        """The version in use."""
        if self.v2 is not None:
            return "hybrid" if self.v1 else "v2"
        return "v1" if self.v1 else "none"

    def parents(self) -> tuple[Path, ...]:
        """The shared directories that hold the groups of all jobs."""
        places = [*self.v1.values(), *([self.v2] if self.v2 else [])]
        return tuple(dict.fromkeys(place / PARENT_NAME for place in places))


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What a job gets: cores, memory (None: unlimited), weight against others on the same cores (100 is usual)."""

    cores: tuple[int, ...] = ()
    memory_bytes: int | None = None
    cpu_weight: int = 100


def discover(*, mountinfo: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> Layout:
    """Return where this user can make groups; looks only, makes nothing."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    v2_controllers: frozenset[str] = frozenset()
    memberships = dict(_memberships(own))
    for mount in _mounts(mountinfo):
        for name in ("", *_V1_CONTROLLERS):
            if name not in mount.controllers or name not in memberships:
                continue
            group = mount.path_of(memberships[name])
            if name and _usable(group):
                v1[name] = group
            elif not name:
                v2, v2_controllers = _v2_place(group, mount.point)
    if v2 is not None:
        v1.pop("freezer", None)  # version 2 freezes and kills, and a job can be born into its group
    return Layout(v1=v1, v2=v2, v2_controllers=v2_controllers)


def steps(layout: Layout, key: str, shares: Shares) -> tuple[CgroupStep, ...]:
    """Return the steps that make the groups of one attempt.

    Args:
        layout: From `discover`.
        key: A name that no other attempt on this machine has.
        shares: What the job gets.
    """
    made: list[CgroupStep] = []
    for place, controllers in _by_place(layout).items():
        parent, group = place / PARENT_NAME, place / PARENT_NAME / key
        if place == layout.v2:
            made += _enable_v2(place, controllers)
        made.append(CgroupStep(kind="parent", path=str(parent)))
        if place == layout.v2:
            made += _enable_v2(parent, controllers)
        elif "cpuset" in controllers:
            made += _open_v1_cpuset(place, parent)
        made.append(CgroupStep(kind="enter", path=str(group)))
        made += (
            _v2_limits(group, controllers, shares)
            if place == layout.v2
            else _v1_limits(group, controllers, place, shares)
        )
    return tuple(made)


def which(layout: Layout) -> str:
    """Say in words what is used."""
    if layout.kind == "none":
        return (
            "no cgroup is writable: jobs are pinned by CPU affinity, throttled and suspended by signals; "
            "memory is not limited"
        )
    limited = sorted(layout.v2_controllers | (layout.v1.keys() - {"freezer"}))
    freezing = "cgroup.freeze (v2)" if layout.v2 else "the v1 freezer" if "freezer" in layout.v1 else "signals"
    quota = "its CPU quota" if "cpu" in limited else "signals"
    memory = "" if "memory" in limited else "; memory is not limited"
    names = ", ".join(limited) or "no controllers"
    return f"cgroups {layout.kind} ({names}): suspended by {freezing}, throttled by {quota}{memory}"


def remove_stale(layout: Layout, prefix: str, live: Collection[str]) -> list[str]:
    """Kill and remove the groups whose key starts with `prefix` and is not in `live`; returns the keys removed.

    Only keepers that were killed leave groups behind. The caller names only its own keys.
    """
    stale = {
        group
        for parent in layout.parents()
        if parent.is_dir()
        for group in parent.iterdir()
        if group.name.startswith(prefix) and group.is_dir() and group.name not in live
    }
    for group in stale:
        _kill_members(group)  # all of them first: a process that is frozen in one tree cannot leave another
    for group in stale:
        _remove(group)
    for parent in layout.parents():
        with suppress(OSError):
            parent.rmdir()
    left = {group.name for group in stale if group.exists()}
    return sorted({group.name for group in stale} - left)


@dataclass(frozen=True, kw_only=True)
class _Mount:
    point: Path
    root: str
    controllers: frozenset[str]  # "" stands for version 2

    def path_of(self, group: str) -> Path:
        """Where a group is seen; in a container the mount shows only a part of the tree."""
        inside = group == self.root or group.startswith(self.root.rstrip("/") + "/")
        return Path(os.path.normpath(self.point / os.path.relpath(group, self.root))) if inside else self.point


def _mounts(mountinfo: Path) -> Iterator[_Mount]:
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = (part.encode().decode("unicode_escape") for part in before.split(" ")[3:5])
        if kind == "cgroup2":
            yield _Mount(point=Path(point), root=root, controllers=frozenset({""}))
        elif kind == "cgroup":
            yield _Mount(point=Path(point), root=root, controllers=frozenset(options.split(",")) - {""})


def _memberships(own: Path) -> Iterator[tuple[str, str]]:
    for line in own.read_text().splitlines():
        _, names, path = line.split(":", 2)
        yield from ((name, path) for name in names.split(","))


def _usable(group: Path) -> bool:
    files = (group, group / "cgroup.procs")
    return all(os.access(file, os.W_OK, effective_ids=os.access in os.supports_effective_ids) for file in files)


def _v2_place(own: Path, top: Path) -> tuple[Path | None, frozenset[str]]:
    chain = [own, *own.parents]
    chain = chain[: chain.index(top) + 1] if top in chain else [top]
    place = next((group for group in reversed(chain) if _usable(group)), None)
    if place is None:
        return None, frozenset()
    available = _words(place / "cgroup.controllers") & set(_V2_CONTROLLERS)
    is_root = not (place / "cgroup.type").exists()
    can_enable = is_root or not _words(place / "cgroup.procs")
    return place, frozenset(available if can_enable else available & _words(place / "cgroup.subtree_control"))


def _words(file: Path) -> set[str]:
    try:
        return set(file.read_text().split())
    except OSError:
        return set()


def _by_place(layout: Layout) -> dict[Path, frozenset[str]]:
    places: dict[Path, frozenset[str]] = {}
    for name, place in layout.v1.items():  # cpu and cpuacct, for one, often share a tree
        places[place] = places.get(place, frozenset()) | {name}
    if layout.v2 is not None:
        places[layout.v2] = layout.v2_controllers
    return places


def _enable_v2(group: Path, controllers: frozenset[str]) -> Iterator[CgroupStep]:
    for name in sorted(controllers):
        yield CgroupStep(kind="try", path=str(group / "cgroup.subtree_control"), value=f"+{name}")


def _open_v1_cpuset(place: Path, parent: Path) -> Iterator[CgroupStep]:
    for name in ("cpus", "mems"):  # a fresh v1 cpuset is empty and lets nobody in
        allowed = (place / f"cpuset.effective_{name}").read_text().strip()
        yield CgroupStep(kind="write", path=str(parent / f"cpuset.{name}"), value=allowed)


def _v1_limits(group: Path, controllers: frozenset[str], place: Path, shares: Shares) -> Iterator[CgroupStep]:
    if "cpuset" in controllers:
        mems = (place / "cpuset.effective_mems").read_text().strip()
        cpus = ",".join(map(str, shares.cores)) or (place / "cpuset.effective_cpus").read_text().strip()
        yield CgroupStep(kind="write", path=str(group / "cpuset.mems"), value=mems)
        yield CgroupStep(kind="write", path=str(group / "cpuset.cpus"), value=cpus)
    if "cpu" in controllers and shares.cpu_weight != 100:
        yield CgroupStep(kind="try", path=str(group / "cpu.shares"), value=str(max(2, shares.cpu_weight * 1024 // 100)))
    if "memory" in controllers and shares.memory_bytes is not None:
        limit = str(shares.memory_bytes)
        yield CgroupStep(kind="write", path=str(group / "memory.limit_in_bytes"), value=limit)
        yield CgroupStep(kind="try", path=str(group / "memory.memsw.limit_in_bytes"), value=limit)


def _v2_limits(group: Path, controllers: frozenset[str], shares: Shares) -> Iterator[CgroupStep]:
    if "cpuset" in controllers and shares.cores:
        yield CgroupStep(kind="write", path=str(group / "cpuset.cpus"), value=",".join(map(str, shares.cores)))
    if "cpu" in controllers and shares.cpu_weight != 100:
        yield CgroupStep(kind="try", path=str(group / "cpu.weight"), value=str(shares.cpu_weight))
    if "memory" in controllers and shares.memory_bytes is not None:
        yield CgroupStep(kind="write", path=str(group / "memory.max"), value=str(shares.memory_bytes))
        yield CgroupStep(kind="try", path=str(group / "memory.swap.max"), value="0")


def _remove(group: Path) -> None:
    deadline = time.monotonic() + _REMOVAL_S
    while group.exists() and time.monotonic() < deadline:
        _kill_members(group)
        inner: list[Path] = []
        with suppress(FileNotFoundError):  # its keeper, killed late, has removed it meanwhile
            inner = [path for path in group.iterdir() if path.is_dir()]
        for one in inner:
            _remove(one)
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.002)  # members leave the group a moment after their death


def _kill_members(group: Path) -> None:
    if (group / "cgroup.kill").exists():
        _write(group / "cgroup.kill", "1")
        return
    for pid in _words(group / "cgroup.procs"):
        with suppress(OSError):
            pidfd = os.pidfd_open(int(pid))
            try:  # opened, then still a member: so it is the member that is killed
                if pid in _words(group / "cgroup.procs"):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
    _write(group / "freezer.state", "THAWED")


def _write(file: Path, value: str) -> None:
    with suppress(OSError), file.open("r+") as handle:
        handle.write(value)
