"""`tandem doctor`: what this machine has, and which protections it gives."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import shutil
import tempfile
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tandem import __version__
from tandem.cli import words
from tandem.cli.moments import clock_time
from tandem.cli.terminal import json_option, print_json, say, say_pairs
from tandem.core.errors import DaemonError, PermissionRefusedError, TandemError
from tandem.core.units import human_size

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.share.paths import Paths


_FEW_FILES = 10_000


@click.command()
@click.option("--measure", is_flag=True, help="Measure the memory bandwidth anew, best while nothing runs.")
@json_option
def doctor(measure: bool, as_json: bool) -> None:
    """What this machine has, and which protections it gives.

    Starts nothing. Exit status 1 if something is wrong.
    """
    if measure:
        _measure()
    told = examine()
    if as_json:
        print_json(told)
    else:
        _say(told)
        if measure and told["daemon"]:
            say("the daemon uses the new measurement from its next start (`tandem down`, `tandem up`; jobs run on)")
    if told["problems"]:
        raise click.exceptions.Exit(1)


def examine() -> dict[str, Any]:
    """Look at the installation, the machine and the daemon, if one runs."""
    from tandem.core import machine
    from tandem.core.process import cgroups, keeper
    from tandem.share import paths

    hardware = machine.discover()
    places = paths.of_client(os.environ, os.geteuid())
    native = keeper.keeper_path()
    daemon = _daemon(places)
    serves = daemon is not None and "problem" not in daemon
    engine = daemon["engine"] if daemon is not None and serves else {}  # what it protects jobs with is what counts
    told: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "native": importlib.util.find_spec("tandem._native") is not None,
        "keeper": engine.get("keeper") or (None if native is None else str(native)),
        "host": hardware.hostname,
        "cores": [core.index for core in hardware.cores],
        "numa_domains": len(hardware.numa_domains()),
        "memory_bytes": hardware.memory_bytes,
        "gpus": [{"index": gpu.index, "name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in hardware.gpus],
        "memory_bandwidth": _bandwidth(places),
        "bandwidth_of_nodes": _bandwidth_of_nodes() if serves else {},
        "cpu_features": machine.cpu_features(),
        "protection": engine.get("cgroups") or cgroups.which(cgroups.discover()),
        "stopped": "" if serves else _stopped(places),
        "data": str(places.data),
        "whose": _whose(places.data),
        "unwritable": None if serves else _unwritable(places),
        "free_bytes": _free_bytes(places.data),
        "free_files": _free_files(places.data),
        "database": _database(places),
        "daemon": daemon,
        "profiles": _profiles() if serves else [],
        "unread_profiles": _unread(places.data, hardware.fingerprint),
        "calibration": _calibration(places.data),
    }
    return told | {"problems": _problems(told)}


def _stopped(places: Paths) -> str:
    """Why a daemon of this user could start no job: for want of a keeper, or of locks; "" where it could."""
    from tandem.core.process import keeper, locks

    if places.shared and os.geteuid() != 0:  # that is root's business
        return ""
    try:
        keeper.keeper_command()
        locks.lock_dir(make=False)
    except TandemError as error:
        return str(error)
    return ""


def _measure() -> None:
    """Measure the memory bandwidth of the cores that it was measured on before, else of all, and keep it."""
    from tandem.core import machine
    from tandem.share import paths
    from tandem.share.node import bandwidth

    places = paths.of_client(os.environ, os.geteuid())
    if not places.data.exists():
        paths.prepare(places)
    owner = places.data.stat().st_uid
    if owner != os.geteuid():
        raise PermissionRefusedError(
            given=f"a measurement for the daemon of {words.user(owner)}",
            allowed="its own user",
            todo="have that user measure it",
        )
    before = bandwidth.kept(places.bandwidth)
    ours = os.sched_getaffinity(0)
    cores = None if before is None or not ours.issuperset(before.cores) else before.cores
    bandwidth.keep(places.bandwidth, bandwidth.measure(machine.discover(usable=cores), time.time()))


def _bandwidth(places: Paths) -> dict[str, Any] | None:
    """The kept measurement; None where there is none, or it is not this user's to read."""
    from tandem.share.node import bandwidth

    found = bandwidth.kept(places.bandwidth)
    return None if found is None else asdict(found) | {"doubtful": found.doubtful}


def _database(places: Paths) -> str | None:
    """What is wrong with the stored queue, or "ok"; None where there is none, or it is not this user's to read."""
    from tandem.share.store.store import examine

    try:
        if not os.access(places.database, os.R_OK):
            return None
        examine(places)
    except (TandemError, OSError) as error:
        return str(error)
    return "ok"


def _daemon(places: Paths) -> dict[str, Any] | None:
    from tandem.share.daemon.client import Client
    from tandem.share.store.lock import holder

    try:
        client = Client.connect(start=False, paths=places)
    except DaemonError as error:
        return {"problem": str(error)} if holder(places) else None
    with client:
        try:
            return client.doctor()
        except TandemError as error:
            return {"problem": str(error)}


def _bandwidth_of_nodes() -> dict[str, float | None]:
    """What the daemon takes the memory bandwidth of its nodes to be, in MB/s; None where it does not know."""
    from tandem.share.daemon.client import Client

    try:
        with Client.connect(start=False) as client:
            return {node["id"]: node["capacity"]["membw_mbs"] for node in client.nodes()}
    except TandemError:
        return {}


def _profiles() -> list[dict[str, Any]]:
    """The applications that the scheduler has profiles of; none where no daemon runs."""
    from tandem.share.daemon.client import Client

    try:
        with Client.connect(start=False) as client:
            return client.profiles()
    except TandemError:
        return []


def _unread(data: Path, machine: str) -> list[str]:
    """Why each profile of the data folder that cannot be read cannot."""
    from tandem.estimate.profiling import store

    return [str(error) for error in store.load(data, machine).unread.values()]


def _calibration(data: Path) -> str:
    """Why the kept calibration of this machine's bubbles cannot be used; "" where it can, or there is none."""
    from tandem.estimate import bubbles

    return bubbles.why_not(data / "bubbles")


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(_nearest(folder)).free


def _whose(data: Path) -> str | None:
    """Whose data folder it is, who alone starts its daemon; None where that is this user's."""
    owner = data.stat().st_uid if data.exists() else os.geteuid()
    return None if owner == os.geteuid() else words.user(owner)


def _free_files(folder: Path) -> int | None:
    """How many files more this user may make there; None where that is not counted."""
    from tandem.share.store.reserve import free_files

    files = free_files(os.statvfs(_nearest(folder)))
    return None if math.isinf(files) else int(files)


def _unwritable(places: Paths) -> str | None:
    """Why this user's daemon could store nothing there; None where it can, or where it is the folder of all users."""
    folder = places.data
    there = _nearest(folder)
    try:
        if folder.exists() and (owner := folder.stat().st_uid) != os.geteuid():
            of_all = places.shared and os.geteuid() != 0
            return None if of_all else f"{folder} belongs to {words.user(owner)}, of whom no daemon answers"
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return f"nothing can be written to {there}: {error.strerror or error}"


def _nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _problems(told: dict[str, Any]) -> list[str]:
    found = []
    if told["stopped"]:
        found.append(f"no job can start: {told['stopped']}")
    if told["unwritable"] is not None:
        found.append(f"{told['unwritable']}; make it writable, or name another folder in TANDEM_HOME")
    elif told["free_bytes"] < 100 << 20:
        found.append(f"only {human_size(told['free_bytes'])} are free for {told['data']}: make room")
    if told["free_files"] is not None and told["free_files"] < _FEW_FILES:
        found.append(f"only {told['free_files']} files more can be made on the disk of {told['data']}: remove some")
    if told["database"] not in ("ok", None):
        found.append(told["database"])
    daemon = told["daemon"]
    if daemon and "problem" in daemon:
        found.append(f"the daemon does not answer well: {daemon['problem']}")
    elif daemon and daemon["version"] != told["version"]:
        found.append(f"the daemon is version {daemon['version']}: restart it with `tandem down` and `tandem up`")
    if daemon and daemon.get("store", "ok") != "ok":
        found.append(f"the daemon cannot store: {daemon['store']}")
    engine = (daemon or {}).get("engine", {})
    if engine.get("lacking"):
        found.append(f"no job could be started of late: {engine['lacking']}")
    found += [
        f"{what} was given out twice: the lock file in {engine['locks']} had been removed; wait until one has ended"
        for what in engine.get("also_held", ())
    ]
    left = (daemon or {}).get("unread_profiles", [])
    found += [f"a profile is left aside: {words}" for words in dict.fromkeys([*told["unread_profiles"], *left])]
    return [*found, told["calibration"]] if told["calibration"] else found


def _say(told: dict[str, Any]) -> None:
    gpus = [f"{gpu['index']}: {gpu['name']}, {human_size(gpu['memory_bytes'])}" for gpu in told["gpus"]]
    domains = words.count(told["numa_domains"], "NUMA domain")
    free = f"{human_size(told['free_bytes'])} free"
    native = "built" if told["native"] else "not built: slower fallbacks are used"
    lines = [
        ("tandem", f"{told['version']} on Python {told['python']}; native parts {native}"),
        ("machine", f"{told['host']}: {words.count(len(told['cores']), 'core')} ({words.ranges(told['cores'])}), "
                    f"{domains}, {human_size(told['memory_bytes'])} of memory"),
        ("bandwidth", _bandwidth_words(told)),
        ("network", "its bandwidth is not known, so what `--nic` asks for is not checked here"),
        ("GPUs", "; ".join(gpus) or "none"),
        ("protection", _protection_words(told)),
        ("keeper", told["keeper"] or "missing"),
        ("data", f"{told['data']}, {free}; database {_database_words(told)}"),
        ("daemon", _daemon_words(told)),
        *([("profiles", _profile_words(told["profiles"]))] if told["profiles"] else []),
    ]  # fmt: skip
    say_pairs([*lines, *(("problem", problem) for problem in told["problems"])])


def _bandwidth_words(told: dict[str, Any]) -> str:
    """How much the memory gives, since when that is known, and whether to believe it."""
    found: dict[str, Any] | None = told["memory_bandwidth"]
    known = {node: mbs for node, mbs in told["bandwidth_of_nodes"].items() if mbs is not None}
    if found is None and known:
        return ", ".join(f"{mbs / 1000:.1f} GB/s of memory for {node}" for node, mbs in known.items())
    if found is None and told["whose"] is not None:
        return f"of the memory: none that you may read, it is for {told['whose']} to measure"
    if found is None:
        return "of the memory: not measured yet; the daemon does so at its first start, `tandem doctor --measure` now"
    when = f"measured {clock_time(found['measured_at'], time.time())} at a load average of {found['load']:.2f}"
    doubt = ": something else ran then, so it may be too low; `tandem doctor --measure` measures anew"
    text: str = f"{found['mbs'] / 1000:.1f} GB/s of memory for cores {words.ranges(found['cores'])}, {when}"
    return text + doubt if found["doubtful"] else text


def _protection_words(told: dict[str, Any]) -> str:
    """What jobs are protected with: by the daemon that runs, else by one of this user's."""
    own: str = told["protection"]
    if told["whose"] is None or (told["daemon"] or {}).get("engine"):
        return own
    return f"that of {told['whose']}'s daemon is known while it answers; one of your own would give: {own}"


def _database_words(told: dict[str, Any]) -> str:
    if told["database"] is not None:
        return "well" if told["database"] == "ok" else "not well, see below"
    try:
        os.stat(f"{told['data']}/tandem.db")  # noqa: PTH116 - a Path would be one more import
    except FileNotFoundError:
        return "none yet"
    except OSError:  # what lies in the folder is not for this user to know
        pass
    return "none that you may read"


def _profile_words(profiles: list[dict[str, Any]]) -> str:
    known = ", ".join(str(one["app"]) for one in profiles if not one["stale"])
    return "; ".join(
        [f"of {known}" if known else "none that holds", *(str(one["stale"]) for one in profiles if one["stale"])]
    )


def _daemon_words(told: dict[str, Any]) -> str:
    daemon = told["daemon"]
    if daemon is None:
        if told["whose"] is not None:
            return f"does not run; that is for {told['whose']} to start (`tandem up`)"
        stops = told["stopped"] or told["unwritable"] or told["database"] not in ("ok", None)
        return "does not run" + (
            ", and cannot start: see below" if stops else "; the first command that needs it starts it"
        )
    if "problem" in daemon:
        return str(daemon["problem"])
    who = "serves all users" if daemon["shared"] else f"serves {words.user(daemon['uid'])}"
    return f"process {daemon['pid']}, {who}, policy {daemon['policy']}, estimator {daemon['estimator']}"
