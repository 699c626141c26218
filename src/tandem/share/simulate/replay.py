"""Replaying a stored day: the same events into a fresh state machine must give the same decisions.

A log is a list of entries ``{"setup": ...}`` (a new epoch) and ``{"now": t, "events": [...], "decisions": [...]}``, as
`tandem replay` reads them from the store or from an exported file (one JSON object a line). There steps have numbers,
``"step": n``, which follow each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.core.errors import MissingPackageError, StoreError, TandemError, UnknownPluginError
from tandem.share.codec import from_json, to_json
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Difference:
    """A step that decided otherwise than it did on the day."""

    entry: int
    now: float
    stored: list[Any]
    replayed: list[Any]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An epoch whose policy or estimator can no longer be had: why, and when its first step was."""

    now: float
    why: TandemError


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found in the epochs that are not left out."""

    epochs: int
    steps: int
    events: int
    decisions: int
    differences: tuple[Difference, ...]
    left_out: tuple[LeftOut, ...] = ()


def setup_entry(setup: Setup) -> dict[str, Any]:
    """The log entry with which an epoch begins."""
    return {
        "setup": {
            "policy": setup.policy,
            "estimator": setup.estimator,
            "options": dict(setup.options),
            "snapshot": setup.snapshot,
        }
    }


def step_entry(now: float, events: Iterable[Any], step: Step) -> dict[str, Any]:
    """The log entry of one step."""
    return {"now": now, "events": [to_json(e) for e in events], "decisions": [to_json(d) for d in step.decisions]}


def read_setup(entry: Mapping[str, Any]) -> Setup:
    """The inverse of `setup_entry`."""
    setup = entry["setup"]
    return Setup(setup["policy"], setup["estimator"], setup["options"], setup["snapshot"])


def replay(entries: Iterable[Mapping[str, Any]], *, policy: str | None = None) -> Replayed:
    """Feed a log to fresh machines and compare every decision.

    Args:
        policy: another policy than the stored one. Then differences are what it would have done otherwise: each policy
            has its own reasons, and `Reserve` does nothing.

    Raises:
        StoreError: the log does not begin with a setup, or a step of it is missing or twice there.
        UnknownPluginError, MissingPackageError: no epoch with a step has a policy and an estimator that can be had.
    """
    machine: Machine | None = None
    lost: TandemError | None = None  # why the present epoch is left out
    left_out: list[LeftOut] = []
    epochs = steps = events = decisions = 0
    differences: list[Difference] = []
    for number, entry in enumerate(_whole(entries)):
        if "setup" in entry:
            setup = read_setup(entry)
            setup = setup if policy is None else Setup(policy, setup.estimator, setup.options, setup.snapshot)
            try:
                machine, lost = Machine(setup), None
                epochs += 1
            except (UnknownPluginError, MissingPackageError) as error:
                machine, lost = None, error
            continue
        if lost is not None:
            if not left_out or left_out[-1].why is not lost:
                left_out.append(LeftOut(entry["now"], lost))
            continue
        if machine is None:
            raise StoreError(
                given="a log that does not begin with a setup",
                allowed="a log as `tandem replay --export` writes it",
                todo="export the day again",
            )
        told = [from_json(event) for event in entry["events"]]
        step = machine.step(entry["now"], told)
        replayed = [to_json(decision) for decision in step.decisions]
        steps, events, decisions = steps + 1, events + len(told), decisions + len(replayed)
        stored = entry["decisions"]
        if (replayed != stored) if policy is None else (_acts(replayed) != _acts(stored)):
            differences.append(Difference(number, entry["now"], list(stored), replayed))
    if left_out and not steps:
        raise left_out[0].why
    if not epochs:
        raise StoreError(given="an empty log", allowed="a log that begins with a setup", todo="export the day again")
    return Replayed(epochs, steps, events, decisions, tuple(differences), tuple(left_out))


def _whole(entries: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The entries of a log, as long as no step is missing: decisions without it may be the same by luck."""
    last: int | None = None
    for number, entry in enumerate(entries, 1):
        step = entry.get("step")
        if isinstance(step, int):
            if last is not None and step != last + 1:
                raise StoreError(
                    given=f"line {number} of the log is step {step}, the one before it is step {last}",
                    allowed="a whole log, each step behind the one before",
                    todo="export the day again",
                )
            last = step
        yield entry


def _acts(decisions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is done in a step, and where; neither why nor in which order."""
    done = [{key: value for key, value in one.items() if key != "reason"} for one in decisions]
    return sorted((one for one in done if one["is"] != "Reserve"), key=lambda one: (one["job"], one["is"]))


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Entries of an exported log, one JSON object a line.

    Raises:
        StoreError: a line is not one; says which.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                known = isinstance(entry, dict) and ("setup" in entry or {"now", "events", "decisions"} <= entry.keys())
            except json.JSONDecodeError:
                known = False
            if not known:
                raise StoreError(
                    given=f"{path}, line {number}: {line[:60]!r}",
                    allowed="lines with a setup, or with now, events and decisions",
                    todo="give a log that `tandem replay --export` wrote",
                )
            yield entry
