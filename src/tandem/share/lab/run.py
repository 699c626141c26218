"""Running a lab's day for real: one daemon a policy, on one store, so that each knows what was seen before it."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.core import config
from tandem.core.errors import DaemonError, DependencyError
from tandem.core.interrupts import counted_once, heard_sigterm, unbroken
from tandem.share import paths as places
from tandem.share.daemon.client import Client
from tandem.share.lab.day import Day, read_day
from tandem.share.lab.feasible import busy_cores
from tandem.share.lab.plan import Lab, LabJob, in_order, submission
from tandem.share.model import Interval, Quote

if TYPE_CHECKING:
    from tandem.share.paths import Paths

Watch = Callable[[str, Sequence[Mapping[str, Any]], float], None]
"""Called now and then with (policy, the queue as the daemon shows it, seconds since the day began)."""

WATCH_S = 0.25


@dataclass(frozen=True, slots=True)
class LabRun:
    """All days of one lab run, in the order they were run."""

    folder: Path
    days: tuple[Day, ...]
    names: Mapping[str, Mapping[int, str]]
    """Policy -> job id -> the job's name in the file."""
    left_out: Mapping[str, Mapping[str, str]]
    """Policy -> name of a job that could not be submitted any more -> why: one before it had not ended well."""
    cores: int


def run(
    lab: Lab,
    folder: Path,
    *,
    home: Path | None = None,
    watch: Watch | None = None,
    broken_off: Callable[[], None] = lambda: None,
) -> LabRun:
    """Run every policy's day, one after the other.

    Args:
        folder: the run folder: ``config.toml``, the daemons' data, results; made if absent.
        home: the daemons' data folder; that of earlier days lets this day know of them. None: one in ``folder``.
        watch: shown the queue while a day runs.
        broken_off: called at Ctrl-C, SIGTERM and SIGHUP, before the jobs are stopped: that takes as long as the grace
            they were given.

    Raises:
        MachineBusyError: cores that the day needs are used by another scheduler.
        KeyboardInterrupt: at Ctrl-C, once the jobs and their daemon have ended; another meanwhile changes nothing.
        SystemExit: at SIGTERM and SIGHUP, likewise. After SIGKILL the daemon ends, and its jobs, by itself.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(counted_once())
        stack.enter_context(heard_sigterm())
        reads, writes = os.pipe()
        stack.callback(os.close, reads)
        stack.callback(os.close, writes)
        return _days(lab, folder, home, watch, broken_off, reads)


def _days(
    lab: Lab, folder: Path, home: Path | None, watch: Watch | None, broken_off: Callable[[], None], tied_to: int
) -> LabRun:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config.dump(lab), encoding="utf-8")
    where = places.home(home or folder / "home")
    days: list[Day] = []
    names: dict[str, dict[int, str]] = {}
    left_out: dict[str, dict[str, str]] = {}
    cores = 0
    for policy in lab.policies:
        options = ["--policy", policy, "--estimator", lab.estimator]
        options += ["--engine-set", f"cores={lab.cores}"] if lab.cores else []
        with Client.connect(paths=where, options=options, tied_to=tied_to) as client:
            try:
                cores = sum(int(node["capacity"]["cpu_milli"]) for node in client.nodes()) // 1000
                work = folder / "work" / policy
                day, names[policy], left_out[policy] = _day(client, lab, policy, where, work, watch)
            except (KeyboardInterrupt, SystemExit):
                with unbroken():
                    broken_off()
                raise
            finally:
                with unbroken():
                    _down(where)
        days.append(day)
    return LabRun(folder, tuple(days), names, left_out, cores)


def _down(where: Paths) -> None:
    """Stop the daemon and its jobs; over a connection of its own, as the other may have been broken off in a word."""
    with contextlib.suppress(DaemonError), Client.connect(start=False, paths=where) as client:  # it may be gone already
        client.down(kill=True)


def _day(
    client: Client, lab: Lab, policy: str, where: Paths, work: Path, watch: Watch | None
) -> tuple[Day, dict[int, str], dict[str, str]]:
    """Submit the jobs at their times, wait for them, read the log; also who was who, and who was left out and why."""
    gpus = sum(int(node["capacity"]["gpus"] or 0) for node in client.nodes())
    _demand_idle(client)
    began = time.monotonic()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(policy, where, watch, done, began), daemon=True)
    if watch is not None:
        watcher.start()
    ids: dict[str, int] = {}
    left_out: dict[str, str] = {}
    try:
        for at_s, batch in itertools.groupby(in_order(lab), key=lambda job: job.at_s):
            _until(began + at_s)
            _submit(client, lab, list(batch), (ids, left_out), gpus, work)
        ends = client.wait(list(ids.values()))
    finally:
        with unbroken():
            done.set()
            if watch is not None:
                watcher.join()
    mine = set(ids.values())
    quotes = [quote for row in client.promises(limit=10_000) if (quote := _quote(row)).job in mine]
    names = {job: name for name, job in ids.items()}
    return read_day(_last_epoch(client), quotes, ends, names), names, left_out


def _submit(
    client: Client, lab: Lab, batch: list[LabJob], told: tuple[dict[str, int], dict[str, str]], gpus: int, cwd: Path
) -> None:
    """Submit jobs together, except that one which depends on another of them has to know its number.

    Args:
        told: the numbers of jobs that were submitted, and why others could not be; both grow.
    """
    ids, left_out = told
    cwd.mkdir(parents=True, exist_ok=True)
    while batch:
        names = {job.name for job in batch}
        ready = [job for job in batch if names.isdisjoint(job.after)]
        batch = [job for job in batch if job not in ready]
        for job in ready:
            missing = [name for name in job.after if name in left_out]
            if missing:
                left_out[job.name] = f"{missing[0]} before it was left out"
        ready = [job for job in ready if job.name not in left_out]
        together, alone = [job for job in ready if not job.after], [[job] for job in ready if job.after]
        for group in filter(None, [together, *alone]):
            try:
                made = client.submit([submission(lab, job, ids, gpus_here=gpus, cwd=cwd) for job in group])
            except DependencyError as error:  # what it waits for has ended badly meanwhile
                numbers = {f"job {ids[name]},": f"{name}," for name in group[0].after}
                left_out[group[0].name] = _renamed(error.given, numbers)
            else:
                ids |= {job.name: int(one["ids"][0]) for job, one in zip(group, made, strict=True)}


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for number, name in names.items():
        text = text.replace(number, name)
    return text


def _demand_idle(client: Client) -> None:
    busy = {core for node in client.nodes() for core in node.get("foreign_cores", ())}
    if busy:
        raise busy_cores(busy)


def _until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.monotonic()))


def _watch(policy: str, where: Paths, watch: Watch | None, done: threading.Event, began: float) -> None:
    if watch is None:
        return
    with Client.connect(start=False, paths=where) as client:
        while not done.wait(WATCH_S):
            watch(policy, client.queue(why=True), time.monotonic() - began)


def _last_epoch(client: Client) -> list[Mapping[str, Any]]:
    """The log since the daemon of this policy began."""
    entries: list[Mapping[str, Any]] = []
    for entry in client.log():
        if "setup" in entry:
            entries = []
        entries.append(entry)
    return entries


def _quote(row: Mapping[str, Any]) -> Quote:
    def interval(what: str) -> Interval:
        return Interval(row[f"{what}_low"], row[f"{what}_mid"], row[f"{what}_high"])

    return Quote(row["job"], row["at"], row["moment"], interval("start"), interval("finish"), row.get("basis") or "")
