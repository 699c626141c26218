"""What one step adds to the store, and how each value becomes a row."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tandem.share.codec import from_json, to_json
from tandem.share.events import Decision, Event, Submitted
from tandem.share.model import Interval, Quote
from tandem.share.node.launch import Launch
from tandem.share.state.life import Life

Row = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Beside:
    """Who ran beside whom: one job over a stretch in which its neighbours did not change.

    Attributes:
        beside: (job, application key) of each neighbour, sorted.
        rate: Steps per second, None where the job wrote no records.
        again: What there was of the stretch is stored already; this takes its place.
    """

    job: int
    attempt: int
    app: str
    node: str
    began_at: float
    ended_at: float
    beside: tuple[tuple[int, str], ...]
    rate: float | None
    throttled: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class AttemptOver:
    """How an attempt ended after which its job waits again: exit code, killing signal (or 0), and why in words."""

    job: int
    attempt: int
    started_at: float | None
    ended_at: float
    exit_code: int
    signal: int
    reason: str


@dataclass(slots=True)
class Entry:
    """One step's rows. ``launches`` are of the jobs that were submitted in it; ``touched`` changed their state."""

    now: float
    events: Sequence[Event]
    decisions: Sequence[Decision] = ()
    quotes: Sequence[Quote] = ()
    launches: Mapping[int, Launch] = field(default_factory=dict)
    submitted: Sequence[Life] = ()
    touched: Sequence[Life] = ()
    exits: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # job -> exit code and signal
    besides: Sequence[Beside] = ()
    attempts: Sequence[AttemptOver] = ()
    taken_back: Sequence[int] = ()  # jobs whose quotes a hold took back
    refused: Sequence[int] = ()  # jobs whose attempt was not started after all


def encode_list(values: Sequence[Event] | Sequence[Decision], jobs: Mapping[int, str] | None = None) -> str:
    """Return events or decisions as one JSON text; ``jobs`` are the texts of jobs that were submitted."""
    known = jobs or {}
    return f"[{','.join(_event_text(value, known) for value in values)}]"


def _event_text(value: Event | Decision, jobs: Mapping[int, str]) -> str:
    text = jobs.get(value.job.id) if isinstance(value, Submitted) else None
    return _encode(to_json(value)) if text is None else f'{{"is":"Submitted","job":{text}}}'


def decode_list(text: str) -> list[Any]:
    """The inverse of `encode_list`."""
    return [from_json(value) for value in json.loads(text)]


def job_row(life: Life) -> Row:
    """A new row of `jobs`."""
    job = life.job
    return {
        "id": job.id,
        "name": job.name,
        "app": job.app,
        "uid": job.uid,
        "class": job.klass.value,
        "submitted_at": life.submitted_at,
        "job": _encode(to_json(job)),
        "exit_code": None,
        "signal": None,
        **_state(life),
    }


def job_change(life: Life, end: tuple[int, int] | None) -> Row:
    """The parameters of an update of `jobs`."""
    code, signal = end if end is not None else (None, None)
    return {"key": life.id, "exit_code": code, "signal": signal, **_state(life)}


def _state(life: Life) -> Row:
    shares = life.placement.shares if life.placement is not None else ()
    return {
        "state": life.state.value,
        "started_at": life.started_at,
        "ended_at": life.ended_at,
        "ran_s": life.ran_s,
        "attempt": life.attempt,
        "reason": life.reason,
        "node": ",".join(share.node for share in shares),
        "cores": _encode([share.cores for share in shares]),
        "gpus": _encode([share.gpus for share in shares]),
    }


def quote_row(quote: Quote) -> Row:
    """A new row of `quotes`."""
    row: Row = {"job": quote.job, "at": quote.at, "moment": quote.moment, "basis": quote.basis}
    for what, interval in (("start", quote.start), ("finish", quote.finish)):
        for bound in ("low", "mid", "high"):
            row[f"{what}_{bound}"] = getattr(interval, bound)
    return row


def quote_of(row: Mapping[str, Any]) -> Quote:
    """The inverse of `quote_row`."""
    start, finish = (
        Interval(row[f"{what}_low"], row[f"{what}_mid"], row[f"{what}_high"]) for what in ("start", "finish")
    )
    return Quote(row["job"], row["at"], row["moment"], start, finish, row["basis"])


def beside_row(beside: Beside) -> Row:
    """A new row of `coruns`."""
    return {
        "job": beside.job,
        "attempt": beside.attempt,
        "app": beside.app,
        "node": beside.node,
        "began_at": beside.began_at,
        "ended_at": beside.ended_at,
        "beside": _encode(beside.beside),
        "rate": beside.rate,
        "throttled": int(beside.throttled),
    }


def attempt_row(over: AttemptOver) -> Row:
    """A new row of `attempts`."""
    return {name: getattr(over, name) for name in AttemptOver.__slots__}


def environ_row(launch: Launch) -> Row:
    """A row of `environs`; equal environments of one owner share it."""
    text = _encode(dict(launch.environ))
    key = hashlib.sha256(f"{launch.uid}\0{text}".encode(errors="surrogateescape")).hexdigest()
    return {"id": key, "environ": text}


def launch_row(job: int, launch: Launch, environ: str) -> Row:
    """A new row of `launches`."""
    values = {name: getattr(launch, name) for name in _LAUNCH_FIELDS}
    return {"job": job, "environ": environ, "launch": _encode({**values, "env": dict(launch.env)})}


def launch_of(row: Mapping[str, Any]) -> Launch:
    """The inverse of `launch_row`; `row` also holds the text of its environ."""
    values = json.loads(row["launch"])
    values["argv"], values["groups"] = tuple(values["argv"]), tuple(values["groups"])
    return Launch(environ=json.loads(row["text"]), **values)


_LAUNCH_FIELDS = ("argv", "cwd", "uid", "gid", "groups", "umask", "stdout", "stderr", "run_dir")
