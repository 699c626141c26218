"""One attempt of a job on its keeper: what was asked of it, and what its messages mean."""

import signal
from collections.abc import Collection
from dataclasses import dataclass, field

from tandem.core.process import locks
from tandem.core.process.journal import Fate
from tandem.core.process.keeper import Keeper
from tandem.core.units import human_size
from tandem.share.events import Ended, Event, StartRefused
from tandem.share.model import Share

Key = tuple[int, int]
"""Job and attempt."""

_NEAR_LIMIT = 0.9
"""Who is killed with this part of its memory in use may have been killed for it, where no group tells."""


@dataclass(slots=True)
class Attempt:
    """What the engine knows of an attempt.

    Attributes:
        keeper: The connection; None for a moment around adoption.
        cores: The cores it is pinned to, and whose locks its keeper holds.
        slots: GPU -> hundredths that its keeper holds.
        started: Its programme was executed.
        suspended: It was asked to stand still.
        save_asked: The checkpoint signal was sent.
        killed: The kill was sent.
        stop_asked: A stop is under way.
        replaced: Somebody else connected to its keeper.
        lost: What it holds that somebody else has locked meanwhile, in words.
        fate: The end, once it is known.
    """

    job: int
    number: int
    share: Share
    keeper: Keeper | None = None
    cores: tuple[int, ...] = ()
    slots: dict[int, frozenset[int]] = field(default_factory=dict)
    started: bool = False
    suspended: bool = False
    save_asked: bool = False
    killed: bool = False
    stop_asked: bool = False
    replaced: bool = False
    lost: str = ""
    fate: Fate | None = None

    @property
    def key(self) -> Key:
        """Job and attempt."""
        return self.job, self.number

    def needs(self, cores: Collection[int], gpus: Collection[int]) -> bool:
        """Whether one of these is in its placement."""
        return not {*self.share.cores}.isdisjoint(cores) or not {*self.share.gpus}.isdisjoint(gpus)

    def send(self, command: str) -> bool:
        """Tell the keeper; False if it is gone."""
        return self.keeper is not None and self.keeper.send(command)

    def send_checkpoint(self, name: str) -> None:
        """Ask the job to save its state; its keeper thaws a suspended one first, which could not."""
        self.suspended = False
        self.save_asked = True
        self.send(f"signal {int(signal.Signals[name])}")

    def kill(self) -> None:
        """End the whole tree."""
        self.killed = True
        self.send("kill")

    def end(self, fate: Fate) -> Event:
        """Return the event that an end known from the journal amounts to."""
        if fate.busy is not None:
            return StartRefused(self.job, self.number, f"somebody else on this machine holds {held(*fate.busy)}")
        if fate.exec_error is not None:
            return Ended(self.job, self.number, code=127, reason=fate.exec_error[1], at=fate.ended_at)
        code, number = fate.exit_code or 0, fate.signal or 0
        saved = self.save_asked and not self.killed
        why = self._of_memory(fate) if code or number else ""
        return Ended(
            self.job,
            self.number,
            code=max(0, code),
            signal=number,
            reason=why,
            saved=saved,
            at=fate.ended_at,
            timed_out=fate.timed_out_at is not None,
        )

    def _of_memory(self, fate: Fate) -> str:
        """How it ended badly, in words, if that was for want of memory; else nothing."""
        how = f"killed by signal {fate.signal}" if fate.signal else f"exit status {fate.exit_code}"
        if fate.memory_kills:
            limit = human_size(fate.memory_limit_bytes)
            if fate.signal == signal.SIGKILL:
                return f"{how}: it reached its memory limit of {limit}"
            others = "one of its processes was" if fate.memory_kills == 1 else f"{fate.memory_kills} processes were"
            return f"{how}; {others} killed at the job's memory limit of {limit}"
        asked, used = self.share.need.mem_mib << 20, fate.usage.max_rss_bytes if fate.usage is not None else 0
        if asked and fate.signal == signal.SIGKILL and not self.killed and used >= _NEAR_LIMIT * asked:
            return f"{how}; it had grown to {human_size(used)}, and had asked for {human_size(asked)} of memory"
        return ""


def held(path: str, byte: int) -> str:
    """What a byte of a lock file stands for, in words."""
    return f"GPU {byte // locks.GPU_SLOTS}" if path.endswith("/gpus") else f"core {byte}"
