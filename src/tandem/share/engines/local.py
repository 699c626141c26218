"""Runs jobs on this machine: each hangs on a keeper of its own, pinned to the cores of its placement.

Jobs outlive the daemon. Nothing here waits: keepers report through one epoll descriptor, stops go through timers.
Cores and GPUs are locked machine-wide by each keeper, so that schedulers of several users never give one out twice.
"""

import errno
import hashlib
import heapq
import itertools
import logging
import os
import select
import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from tandem.core.errors import TandemError
from tandem.core.process import cgroups, journal, keeper, locks, strays
from tandem.core.process.spec import Locks, Spec
from tandem.share import crash
from tandem.share import events as ev
from tandem.share.model import Node, Placement
from tandem.share.node import attempt_spec, local_node
from tandem.share.node.attempt import Attempt, Key, held
from tandem.share.node.engine import Adoptee, Engine, EngineContext
from tandem.share.node.launch import Launch

LOOK_S = 3.0
"""How often foreign use of cores and GPUs is looked for, in seconds."""

AGAIN_S = 1.0
"""When a start that failed for want of the machine's resources is reported, and a refused command sent again; ..."""

AGAIN_MOST_S = 60.0
"""... starts later the longer all have failed, half as long as that, but no later than this."""

TIDY_S = 0.5
"""Folders of ended attempts are removed after so long a pause in ends, in seconds, ..."""

RUBBISH_MOST = 5000
"""... or when there are more of them than this, ..."""

TIDY_AT_ONCE = 20
"""... so many at a time."""

_CLAIMED_BY_ANOTHER = 75  # exit code of a keeper whose attempt has one already
_NO_JOURNAL = 73  # and of one that could not write its journal, and started nothing
_LOCKS_LINGER_S = 0.05

_log = logging.getLogger(__name__)


def make(context: EngineContext) -> Engine:
    """Return the engine of this machine.

    Raises:
        ConfigError: An option that does not fit this machine.
    """
    return LocalEngine(context, local_node.discover(context.options, context.paths.bandwidth))


class LocalEngine:
    """See the module's docstring; `tandem.share.node.engine.Engine` says what each method is for."""

    def __init__(self, context: EngineContext, local: local_node.LocalNode) -> None:
        self._paths = context.paths
        self._clock = context.clock
        self._local = local
        self._layout = cgroups.discover()
        self._plans = attempt_spec.CgroupPlans(self._layout)
        self._command = keeper.keeper_command()
        self._core_locks = str(locks.lock_file("cores"))
        folder = context.paths.data.stat()  # a folder that is moved keeps its groups; its path may be another's then
        identity = hashlib.sha256(f"{folder.st_dev}.{folder.st_ino}".encode())
        self._prefix = f"{identity.hexdigest()[:10]}."
        self._attempts: dict[Key, Attempt] = {}
        self._by_fileno: dict[int, Attempt] = {}
        self._epoll = select.epoll()
        self._events: list[ev.Event] = []
        self._timers: list[tuple[float, int, Key, str]] = []  # (when, order, attempt, what to do)
        self._order = itertools.count()
        self._looked_at = -LOOK_S
        self._to_adopt: set[Key] = set()  # while it adopts: all that may run
        self._rubbish: deque[Path] = deque()  # folders of attempts whose end is stored
        self._tidy_at = 0.0
        self._restarted = _machine_restarted(context.paths.data / "boot")
        self._lacking = ""  # for want of what nothing could be started, since when
        self._lacking_since = 0.0
        self._foreign: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._lock_files: list[tuple[int, int]] = []  # where keepers hold what they hold

    # ------------------------------------------------------------------------- the engine's interface

    def nodes(self) -> list[Node]:
        """Return this machine."""
        return [self._local.node]

    def filenos(self) -> list[int]:
        """Return the epoll descriptor that all keepers hang on."""
        return [self._epoll.fileno()]

    def wake_at(self) -> float:
        """Return when the next timer rings or foreign use is looked for again (monotonic seconds)."""
        if self._events:
            return self._clock.monotonic()
        look = self._looked_at + LOOK_S
        tidy = self._tidy_at if self._rubbish else look
        return min(look, tidy, self._timers[0][0] if self._timers else look)

    def execute(self, instruction: ev.Instruction, launch: Launch | None) -> None:
        """Begin to carry out an instruction."""
        if isinstance(instruction, ev.JobEnded):
            return
        key = (instruction.job, instruction.attempt)
        attempt = self._attempts.get(key)
        if isinstance(instruction, ev.StartJob):
            if attempt is None and launch is not None:
                self._start(key, instruction.placement, launch)
        elif attempt is None:
            if isinstance(instruction, ev.StopJob):
                self._events.append(ev.Ended(*key, lost=True, reason="it was not running any more"))
        elif isinstance(instruction, ev.StopJob):
            self._stop(attempt, instruction)
        elif isinstance(instruction, ev.SuspendJob):
            attempt.suspended = True
            attempt.send("suspend")
        elif isinstance(instruction, ev.ResumeJob):
            self._resume(attempt, instruction.placement)
        else:
            attempt.send(f"throttle {instruction.fraction:g}")

    def adopt(self, jobs: Sequence[Adoptee]) -> None:
        """Take over what a daemon before left, and clear away what belongs to no job."""
        live = {(job.job, job.attempt) for job in jobs}
        for folder in (self._paths.data / "attempts").iterdir():
            job, _, number = folder.name.partition(".")
            if not (job.isdecimal() and number.isdecimal()) or (int(job), int(number)) in live:
                continue
            self._clear_leftover((int(job), int(number)))
        self._to_adopt = live
        for adoptee in jobs:
            self._adopt(adoptee)
        self._to_adopt = set()
        self._remove_stale_groups()

    def poll(self) -> list[ev.Event]:
        """Return what happened since the last call."""
        for fileno, _ in self._epoll.poll(0):
            attempt = self._by_fileno.get(fileno)
            if attempt is not None:
                self._listen(attempt)
        now = self._clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, key, what = heapq.heappop(self._timers)
            if key in self._attempts:
                self._ring(self._attempts[key], what)
        if now >= self._looked_at + LOOK_S:
            self._look_for_strangers()
        if self._rubbish and (now >= self._tidy_at or len(self._rubbish) > RUBBISH_MOST):
            for folder in [self._rubbish.popleft() for _ in range(min(TIDY_AT_ONCE, len(self._rubbish)))]:
                shutil.rmtree(folder, ignore_errors=True)
        events, self._events = self._events, []
        return events

    def forget(self, job: int, attempt: int) -> None:
        """Remove the attempt's folder when there is time for it; its end is stored."""
        self._rubbish.append(self._paths.attempt_dir(job, attempt))
        self._tidy_at = self._clock.monotonic() + TIDY_S

    def describe(self) -> dict[str, object]:
        """Say what protects jobs from each other here."""
        return {
            "engine": "local",
            "cgroups": cgroups.which(self._layout),
            "keeper": " ".join(self._command),
            "locks": str(locks.lock_dir()),
            "foreign_cores": list(self._foreign[0]),
            "foreign_gpus": list(self._foreign[1]),
            "lacking": self._lacking,
            "also_held": [f"{one.lost} of job {one.job}" for one in self._attempts.values() if one.lost],
            "jobs_as_submitter": os.geteuid() == 0,
        }

    def close(self) -> None:
        """Let go of the keepers; their jobs run on."""
        for attempt in self._attempts.values():
            if attempt.keeper is not None:
                attempt.keeper.close()
        self._epoll.close()

    # -------------------------------------------------------------------------------------- starting

    def _start(self, key: Key, placement: Placement, launch: Launch) -> None:
        attempt = Attempt(*key, placement.shares[0])
        folder = self._paths.attempt_dir(*key)
        crash.point("before_spawn")
        try:
            attempt_spec.make_run_dir(launch)
            content = self._spec(attempt, launch).to_bytes()
            folder.mkdir(mode=0o700)
            _write_aside(folder / "spec", content)
            attempt.keeper = keeper.start(folder, command=self._command)
        except TandemError as error:
            self._events.append(ev.Ended(*key, code=126, reason=str(error)))
            return
        except OSError as error:
            self._could_not_start(attempt, error.strerror or str(error))
            return
        crash.point("after_spawn")
        self._watch(attempt)

    def _spec(self, attempt: Attempt, launch: Launch) -> Spec:
        share = attempt.share
        taken = {gpu: self._slots_taken(gpu) for gpu in share.gpus if share.need.gpu_milli}
        ranges, attempt.slots = attempt_spec.gpu_locks(share, taken)
        attempt.cores = share.cores
        env = attempt_spec.environment(attempt.job, attempt.number, launch, share, self._local.uuids)
        every = Locks(core_file=self._core_locks if share.cores else "", ranges=ranges)
        key = f"{self._prefix}{attempt.job}.{attempt.number}"
        return attempt_spec.keeper_spec(launch, share, env, every, self._plans.steps(key, share))

    def _slots_taken(self, gpu: int) -> frozenset[int]:
        """Hundredths of a GPU in use; a keeper of ours that was just spawned may not hold its own yet."""
        ours = (other.slots.get(gpu, frozenset()) for other in self._attempts.values())
        return locks.held_slots(gpu).union(*ours)

    def _could_not_start(self, attempt: Attempt, why: str) -> None:
        """The machine lacks something just now (room, processes): the job waits again, a little later."""
        if not os.access(self._command[0], os.X_OK):
            why = f"the keeper {self._command[0]} has gone, or may not be run: reinstall tandemlab"
        now = self._clock.monotonic()
        if not self._lacking:
            self._lacking_since = now
        if self._lacking != why:
            _log.warning("job %d could not be started: %s", attempt.job, why)
        self._lacking = why
        self._refuse_later(attempt, why, min(AGAIN_MOST_S, max(AGAIN_S, (now - self._lacking_since) / 2)))

    def _refuse_later(self, attempt: Attempt, why: str, later_s: float = AGAIN_S) -> None:
        self._attempts[attempt.key] = attempt
        self._later(later_s, attempt, f"refuse {why}")

    def _watch(self, attempt: Attempt) -> None:
        assert attempt.keeper is not None
        self._attempts[attempt.key] = attempt
        self._by_fileno[attempt.keeper.fileno()] = attempt
        self._epoll.register(attempt.keeper.fileno(), select.EPOLLIN)

    # ------------------------------------------------------------------------------------- adopting

    def _adopt(self, adoptee: Adoptee) -> None:
        key, folder = (adoptee.job, adoptee.attempt), self._paths.attempt_dir(adoptee.job, adoptee.attempt)
        attempt = Attempt(*key, adoptee.placement.shares[0], cores=adoptee.placement.shares[0].cores)
        if journal.state(folder) == "unclaimed":
            if adoptee.started:
                strays.kill_strays(folder)  # its end will not be known: it must not run on beside a retry
                self._lost(key, "its end is not known: the journal of its keeper is gone")
                return
            if self._restarted:  # it may have run: the machine may have lost what the keeper wrote
                self._lost(key, "the machine restarted: whether it ran is not known")
                return
            if not folder.exists():
                self._start(key, adoptee.placement, adoptee.launch)
                return
            # A keeper may be about to claim it: a second one on the same attempt loses against it, harmlessly.
            spec = self._spec(attempt, adoptee.launch)
            attempt_spec.make_run_dir(adoptee.launch)
            _write_aside(folder / "spec", spec.to_bytes())
            attempt.keeper = keeper.start(folder, command=self._command)
            self._watch(attempt)
            return
        attempt.slots = {gpu: locks.held_slots(gpu) for gpu in attempt.share.gpus}
        attempt.keeper = keeper.adopt(folder)
        fate = journal.read(folder)
        if fate.process is not None:
            attempt.started = True
            attempt.cores = _cores_of(fate.process, attempt.cores)  # it may have been about to move to those given
            self._events.append(ev.Started(*key, at=fate.started_at))
        if fate.continued_at is not None:
            self._events.append(ev.WentOn(*key, fate.continued_at, fate.ended_at))
        attempt.stop_asked = fate.timed_out_at is not None  # its keeper carries that through by itself
        if attempt.keeper is not None:
            self._watch(attempt)
        else:
            self._gone(attempt)

    def _lost(self, key: Key, why: str) -> None:
        self._events.append(ev.Ended(*key, lost=True, reason=why))

    def _clear_leftover(self, key: Key) -> None:
        """An attempt whose job has ended, or that the store knows nothing of."""
        folder = self._paths.attempt_dir(*key)
        left = keeper.adopt(folder)
        if left is not None:
            _log.warning("job %d ran on though its end is stored, or it is unknown: killed", key[0])
            left.send("kill")
            left.close()
            return  # its keeper still writes there; the next daemon clears the folder
        strays.kill_strays(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def _remove_stale_groups(self) -> None:
        """Remove what keepers left that were killed; ours are known by their prefix."""
        names = {f"{self._prefix}{job}.{number}" for job, number in self._attempts.keys() | self._to_adopt}
        for removed in cgroups.remove_stale(self._layout, self._prefix, names):
            _log.warning("removed the control group %s, which a killed keeper had left", removed)

    # ------------------------------------------------------------------------------------- listening

    def _listen(self, attempt: Attempt) -> None:
        """Take all messages that the attempt's keeper has sent."""
        assert attempt.keeper is not None
        while (message := attempt.keeper.recv()) is not None:
            if message.kind == "started":
                attempt.started, self._lacking = True, ""
                self._events.append(ev.Started(*attempt.key))
            elif message.kind == "ended":
                attempt.fate = message.fate if message.durable else None
            elif message.kind in ("ok", "error"):
                self._answered(attempt, message.kind == "ok", *message.text.partition(" ")[::2])
            elif message.kind == "replaced":
                attempt.replaced = True
            else:
                self._gone(attempt)
                return

    def _answered(self, attempt: Attempt, obeyed: bool, command: str, rest: str) -> None:
        """The keeper's answer to a command; a job that has ended says so by itself."""
        if command == "lock":
            self._locked_again(attempt, "" if obeyed else rest)
        elif not obeyed and rest != "the job has ended":
            _log.warning("job %d: the keeper could not %s: %s", attempt.job, command, rest)
            if rest.startswith("busy") and attempt.suspended and not attempt.stop_asked:
                self._look_for_strangers()
                if attempt.needs(*self._foreign):  # nobody is seen there: it is tried again here, below
                    self._events.append(ev.ResumeRefused(*attempt.key))
                    return
            if command in ("suspend", "resume", "pin") and not attempt.stop_asked:
                self._later(AGAIN_S, attempt, command)
        elif obeyed and command == "suspend" and attempt.suspended:
            attempt.cores = ()  # their locks were released: others may use them
            self._events.append(ev.SuspendDone(*attempt.key))
        elif obeyed and command == "pin":
            attempt.cores = attempt.share.cores
            attempt.send("resume")
        elif obeyed and command == "resume" and not attempt.stop_asked:
            attempt.suspended = False
            self._events.append(ev.ResumeDone(*attempt.key))

    def _locked_again(self, attempt: Attempt, refused: str) -> None:
        """Whether its keeper could lock all that it holds; what it could not is tried again."""
        busy, _, place = refused.partition(" ")
        path, _, byte = place.rpartition(" ")
        lost = held(path, int(byte)) if busy == "busy" else ""
        if lost and lost != attempt.lost:
            _log.warning("job %d: its lock file was removed, and somebody else holds its %s now", attempt.job, lost)
        attempt.lost = lost
        if lost:
            self._later(LOOK_S, attempt, "lock")

    def _gone(self, attempt: Attempt) -> None:
        """The keeper has ended: its last message, or the journal, says how the job did."""
        folder = self._paths.attempt_dir(*attempt.key)
        code = self._let_go(attempt, folder)
        if code == _CLAIMED_BY_ANOTHER or attempt.replaced:
            attempt.replaced, attempt.keeper = False, keeper.adopt(folder)
            if attempt.keeper is not None:
                self._watch(attempt)
                fate = journal.read(folder)
                if fate.process is not None:
                    attempt.started = True
                    self._events.append(ev.Started(*attempt.key, at=fate.started_at))
                return
        self._attempts.pop(attempt.key, None)
        fate = attempt.fate or journal.read(folder)
        if code is None or fate.exit_code or fate.signal:
            # Why it ended badly, and what happened while no daemon was there, is told before the last line.
            fate = journal.read(folder)
        if fate.busy is not None:
            self._look_for_strangers()
            if not attempt.needs(*self._foreign):  # nobody is seen there: tried again at once, it would spin
                self._refuse_later(attempt, "the locks of its cores or GPUs could not be taken")
                return
        if fate.exec_error is not None and self._is_for_want_of_room(*fate.exec_error):
            self._could_not_start(attempt, fate.exec_error[1])
            return
        if fate.ended:
            self._lacking = ""
            self._events.append(attempt.end(fate))
            return
        strays.kill_strays(folder)
        self._remove_stale_groups()
        if code == _NO_JOURNAL and not attempt.started and fate.process is None:
            self._could_not_start(attempt, "its keeper could not write its journal: is the disk full?")
        elif fate.claimed or attempt.started:
            self._lost(attempt.key, "its end is not known: its keeper was killed, or the machine restarted")
        else:
            how = f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"
            self._events.append(ev.Ended(*attempt.key, code=126, reason=f"its keeper did not start ({how})"))

    def _is_for_want_of_room(self, number: int, reason: str) -> bool:
        """Whether nothing was executed as no room was left for the job's files in the data folder."""
        return number == errno.ENOSPC and reason.startswith(f"cannot open the output '{self._paths.data}/")

    def _let_go(self, attempt: Attempt, folder: Path) -> int | None:
        """Close the connection and wait the moment until the keeper's locks are free; returns its exit code."""
        if attempt.keeper is None:
            return None
        self._by_fileno.pop(attempt.keeper.fileno(), None)
        code = None if attempt.replaced else attempt.keeper.wait()  # of a child of ours, which is ending right now
        attempt.keeper.close()
        attempt.keeper = None
        until = time.monotonic() + _LOCKS_LINGER_S
        while code is None and journal.keeper_alive(folder) and time.monotonic() < until and not attempt.replaced:
            time.sleep(0.0005)
        return code

    # ------------------------------------------------------------------------- stopping and resuming

    def _stop(self, attempt: Attempt, instruction: ev.StopJob) -> None:
        """Checkpoint signal, then SIGTERM half-way through the grace, then the end of the whole tree."""
        if attempt.stop_asked:
            return
        attempt.stop_asked = True
        grace_s = instruction.grace_s
        if instruction.checkpoint and grace_s > 0:
            attempt.send_checkpoint(instruction.checkpoint)
            self._later(grace_s / 2, attempt, "term")
        elif grace_s > 0:
            attempt.send("term")
        self._later(grace_s, attempt, "kill")

    def _resume(self, attempt: Attempt, placement: Placement) -> None:
        attempt.share = placement.shares[0]
        if attempt.share.cores and attempt.share.cores != attempt.cores:
            attempt.send("pin " + ",".join(map(str, attempt.share.cores)))  # resumed once it is moved
        else:
            attempt.send("resume")

    def _later(self, seconds: float, attempt: Attempt, what: str) -> None:
        when = self._clock.monotonic() + seconds
        heapq.heappush(self._timers, (when, next(self._order), attempt.key, what))

    def _ring(self, attempt: Attempt, what: str) -> None:
        """A timer of the attempt rang."""
        if what == "kill":
            attempt.kill()
        elif what == "pin":
            self._resume(attempt, Placement((attempt.share,)))
        elif what.startswith("refuse "):
            del self._attempts[attempt.key]
            self.forget(*attempt.key)
            self._events.append(ev.StartRefused(*attempt.key, what.removeprefix("refuse ")))
        elif what != "suspend" or attempt.suspended:
            attempt.send(what)

    # ------------------------------------------------------------------------------------ foreigners

    def _look_for_strangers(self) -> None:
        """Say which cores and GPUs somebody else uses, if that has changed."""
        self._looked_at = self._clock.monotonic()
        self._lock_again()
        attempts = self._attempts.values()
        ours = {core for one in attempts for core in (one.cores if one.suspended else one.cores + one.share.cores)}
        awaited = {
            core for one in attempts if one.suspended for core in one.share.cores
        }  # perhaps no longer the node's
        cores = locks.foreign_holders("cores", sorted(awaited.union(self._local.node.cores) - ours))
        gpus = set(local_node.strangers(self._local, self._paths.data / "attempts"))
        for gpu in self._local.uuids:
            mine = frozenset().union(*(attempt.slots.get(gpu, frozenset()) for attempt in self._attempts.values()))
            if locks.held_slots(gpu) - mine:
                gpus.add(gpu)
        found = (tuple(sorted(cores)), tuple(sorted(gpus)))
        if found != self._foreign:
            self._foreign = found
            self._events.append(ev.ForeignUse(self._local.node.id, *found))

    def _lock_again(self) -> None:
        """Have keepers lock in the files that are there now; at the first look too, for what happened before."""
        files = [locks.identity(kind, self._clock.now()) for kind in locks.KINDS]
        if files != self._lock_files:
            self._lock_files = files
            for attempt in self._attempts.values():
                attempt.send("lock")


def _cores_of(process: journal.ProcessId, given: tuple[int, ...]) -> tuple[int, ...]:
    """The cores that a job with cores of its own runs on; those given where it has ended."""
    try:
        cores = tuple(sorted(os.sched_getaffinity(process.pid))) if given else ()
    except OSError:
        return given
    return cores if process.lives() else given  # asked after looking: it was this one


def _machine_restarted(kept: Path) -> bool:
    """Whether the machine was started anew since the last engine on this data folder; keeps this boot's id.

    Attempts are not made durable before their keepers are: that would cost every start a write to the disk. It is only
    after a restart of the machine that one can be missing.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    before = kept.read_text() if kept.exists() else None
    if before != boot:  # else nothing is written: a daemon may have to start on a full disk
        _write_aside(kept, boot.encode())
    return before not in (None, boot)


def _write_aside(path: Path, content: bytes) -> None:
    """Put a private file into place whole."""
    aside = path.with_suffix(".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    aside.rename(path)


__all__ = ["LocalEngine", "make"]
