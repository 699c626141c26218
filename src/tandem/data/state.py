"""Where a loader is: a few plain values that go into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tandem.data.steps import LoaderError

VERSION = 1
_MOST_EPOCHS = (1 << 32) - 1
_ALLOWED = f"what state_dict returned (version {VERSION}; seed, epoch and position are whole numbers)"
_TODO = "give what state_dict returned unchanged, or start a new run"
_KINDS: dict[str, type] = {"seed": int, "epoch": int, "position": int, "shuffle": bool, "samples": str}


@dataclass(slots=True)
class LoaderState:
    """Where a loader is, for all ranks.

    Attributes:
        seed: Of the shuffle.
        epoch: Which epoch.
        position: How many positions of it all ranks together have been handed.
        shuffle: Whether the order is shuffled.
        samples: What is read, in words that are the same exactly where the order would be.
    """

    seed: int
    epoch: int
    position: int
    shuffle: bool
    samples: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], samples: str, epoch_size: int) -> LoaderState:
        """Read them again, for a loader of these samples.

        Args:
            values: What `as_dict` returned.
            samples: What that loader reads.
            epoch_size: How many positions an epoch of it has.

        Raises:
            LoaderError: They are no state, of a newer version, of other samples, or of no place in an epoch.
        """
        if not isinstance(values, Mapping):
            raise LoaderError(given=f"a state that is {values!r}", allowed=_ALLOWED, todo=_TODO)
        wrong = [key for key, kind in _KINDS.items() if type(values.get(key)) is not kind]
        if values.get("version") != VERSION or wrong:
            told = ", ".join(f"{key}={value!r}" for key, value in values.items() if key in wrong)
            raise LoaderError(
                given=f"a state of version {values.get('version')!r} with "
                f"{told or ', '.join(map(str, values)) or 'nothing'}",
                allowed=_ALLOWED,
                todo=_TODO,
            )
        unknown = [key for key in values if key not in _KINDS and key != "version"]
        if unknown:
            raise LoaderError(
                given=f"a state that also says {', '.join(map(repr, unknown))}", allowed=_ALLOWED, todo=_TODO
            )
        if min(values["epoch"], values["position"]) < 0 or values["epoch"] > _MOST_EPOCHS:
            raise LoaderError(
                given=f"a state of epoch {values['epoch']}, position {values['position']}",
                allowed=f"both from 0, epochs up to {_MOST_EPOCHS:,}",
                todo=_TODO,
            )
        if values["samples"] != samples:
            raise LoaderError(
                given=f"a state of {values['samples']}; this loader reads {samples}",
                allowed="the state of a loader of the same samples",
                todo="read what was read then (a space: the same generation), or start a new run",
            )
        if values["position"] > epoch_size:
            raise LoaderError(
                given=f"a state of position {values['position']:,} in an epoch",
                allowed=f"0 to {epoch_size:,}, which is the end of an epoch of these samples",
                todo=_TODO,
            )
        return cls(**{key: values[key] for key in _KINDS})
