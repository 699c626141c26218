"""What an engine is: the part that carries out instructions. One file each in `tandem.share.engines`.

An engine never decides. It acts on an instruction at once, without waiting, and says later through `poll` what
came of it. Instructions are idempotent: after a restart the daemon gives again those whose outcome it does not
know. A plug-in exposes `make(context) -> Engine`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tandem.core.clock import Clock
from tandem.share.events import Event, Instruction
from tandem.share.model import Node, Placement
from tandem.share.node.launch import Launch
from tandem.share.paths import Paths


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What an engine is made from.

    Attributes:
        paths: The daemon's places (attempt folders).
        clock: The time.
        locks: Folder of the per-core and per-GPU lock files that all daemons of the host share; None: the default.
        options: The engine's own settings, such as ``cores="0-1"``.
    """

    paths: Paths
    clock: Clock
    locks: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adoptee:
    """An attempt that was under way when the last daemon stopped.

    Attributes:
        started: It is known to have run, so it is not started anew.
    """

    job: int
    attempt: int
    placement: Placement
    launch: Launch
    started: bool = False


class Engine(Protocol):
    """Carries out instructions on nodes."""

    def nodes(self) -> list[Node]:
        """Return the nodes as they are now."""

    def execute(self, instruction: Instruction, launch: Launch | None) -> None:
        """Begin to carry out an instruction; `launch` comes with a `StartJob`."""

    def adopt(self, jobs: Sequence[Adoptee]) -> None:
        """Take over attempts of a daemon before: start those that were only intended, watch those that run,
        and report those that ended. Also clear away what no adoptee belongs to."""

    def poll(self) -> list[Event]:
        """Return what happened since the last call. Never blocks."""

    def wake_at(self) -> float | None:
        """Return when `poll` should be called even if nothing is readable (monotonic seconds), or None."""

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to say (a fixed list)."""

    def forget(self, job: int, attempt: int) -> None:
        """Clear away an attempt whose end has been stored."""

    def describe(self) -> dict[str, object]:
        """Return what protections this engine gives here, for `tandem doctor`."""

    def close(self) -> None:
        """Let go of everything; jobs run on."""
