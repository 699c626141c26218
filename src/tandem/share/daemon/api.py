"""Requests over the socket: who may ask what, and what becomes of it.

A request is one line ``{"id": 1, "method": "submit", "params": {...}}``, its answer ``{"id": 1, "result": ...}`` or
``{"id": 1, "error": {...}}``; streams send ``{"id": 1, "part": ...}`` before. docs/reference/api.md lists the methods.
Changes are answered once they are durable.
"""

import json
import logging
import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tandem.core.errors import (
    ConfigError,
    DaemonError,
    DependencyError,
    JobStateError,
    PermissionRefusedError,
    TandemError,
)
from tandem.core.nearest import did_you_mean
from tandem.share import events as ev
from tandem.share.codec import to_json
from tandem.share.daemon import answers, job_view, submission
from tandem.share.daemon.answers import Caller
from tandem.share.daemon.driver import Change, Driver, Turn
from tandem.share.daemon.job_view import View
from tandem.share.daemon.wire import Connection
from tandem.share.model import After, Job, Node, Quote, State
from tandem.share.node.launch import Launch
from tandem.share.scheduler.machine import Step
from tandem.share.store import queries

WATCHER_LAGS_MOST = 16 << 20
"""A watcher that leaves so much unread is dropped, in bytes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    """One request, and the way back to who made it."""

    connection: Connection
    caller: Caller
    key: Any
    params: Mapping[str, Any]

    def answer(self, result: object) -> None:
        """Send the result, or the error, that ends the request."""
        if isinstance(result, TandemError):
            self.connection.send({"id": self.key, "error": result.as_dict()})
        else:
            self.connection.send({"id": self.key, "result": result})

    def part(self, value: object) -> None:
        """Send one piece of a stream."""
        self.connection.send({"id": self.key, "part": value})


@dataclass(slots=True)
class _Waiter:
    request: _Request
    jobs: list[int]
    left: set[int]


class Api:
    """All methods of the daemon.

    Attributes:
        stopping: The daemon was asked to stop; `ready_to_stop` says when it may.
    """

    def __init__(self, driver: Driver) -> None:
        self.stopping = False
        self._killing = False
        self._driver = driver
        self._next_id = max(driver.store.next_job(), driver.machine.next_id)
        self._waiters: list[_Waiter] = []
        self._watchers: list[_Request] = []
        driver.listeners.append(self._stepped)

    @property
    def ready_to_stop(self) -> bool:
        """Whether nothing is left to do before the daemon stops."""
        return self.stopping and not (self._killing and self._driver.machine.on_nodes)

    @property
    def ended_all(self) -> bool:
        """Whether all jobs were ended for the daemon to stop."""
        return self._killing and self.ready_to_stop

    def caller(self, connection: Connection) -> Caller:
        """Return who is at the other end."""
        peer = connection.peer
        return Caller(peer.uid, peer.gid, peer.pid, all=peer.uid in (0, os.geteuid()))

    def handle(self, connection: Connection, line: bytes) -> None:
        """Take one request; whatever is wrong with it is its sender's problem only."""
        key = None
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise _malformed(why="it is no object")  # noqa: TRY301 - one place answers all mistakes
            key, params = asked.get("id"), asked.get("params") or {}
            method = asked.get("method")
            if not isinstance(params, dict) or not isinstance(method, str):
                raise _malformed(why="method is a text, params an object")  # noqa: TRY301
            self._dispatch(method, _Request(connection, self.caller(connection), key, params))
        except TandemError as error:
            connection.send({"id": key, "error": error.as_dict()})
        except (ValueError, RecursionError) as error:
            connection.send({"id": key, "error": _malformed(str(error)).as_dict()})
        except Exception:
            _log.exception("a request failed: %.200r", line)
            failed = DaemonError(given="a request that the daemon failed on", allowed="any", todo="see its log")
            connection.send({"id": key, "error": failed.as_dict()})

    def gone(self, connection: Connection) -> None:
        """Forget what a client that hung up was waiting for."""
        self._waiters = [waiter for waiter in self._waiters if waiter.request.connection is not connection]
        self._watchers = [request for request in self._watchers if request.connection is not connection]

    def end_all(self, request: _Request | None = None) -> None:
        """Stop all jobs, then the daemon; who asked for it is answered once the jobs' end is asked for."""
        self.stopping = self._killing = True
        uid = os.geteuid() if request is None else request.caller.uid
        live = [job for job, life in self._driver.machine.jobs.items() if not life.ended]
        events = tuple(ev.CancelAsked(job, uid) for job in live)
        if request is None:
            self._driver.ask(Change(events))
        else:
            self._change(request, events)

    # ------------------------------------------------------------------------------------- dispatch

    def _dispatch(self, method: str, request: _Request) -> None:
        question = _QUESTIONS.get(method)
        if question is not None:
            request.answer(question(self._driver, request.caller, request.params))
            return
        handler = _METHODS.get(method)
        if handler is None:
            known = sorted({*_QUESTIONS, *_METHODS})
            raise ConfigError(
                given=f"the method {method!r}",
                allowed=", ".join(known),
                todo=did_you_mean(method, known),
            )
        handler(self, request)

    # ----------------------------------------------------------------------------------- submitting

    def _submit(self, request: _Request) -> None:
        """``jobs``: submissions; ``environ``, ``cwd``, ``umask``: the submitter's surroundings."""
        if self.stopping:
            raise DaemonError(
                given="a submission", allowed="nothing new: the daemon is stopping", todo="try again in a moment"
            )
        given = request.params.get("jobs")
        if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
            raise _malformed(why="jobs is a list of objects")
        made = self._read(given, self._submitter(request))
        jobs = self._checked([job for element in made for job, _ in element])
        launches = {job.id: launch for element in made for job, launch in element}
        self._next_id += len(jobs)
        ids = [[job.id for job, _ in element] for element in made]
        events = tuple(ev.Submitted(job) for job in jobs)
        doubts = [_unmetered([job for job, _ in element], self._driver.machine.ledger.nodes) for element in made]
        self._driver.ask(Change(events, launches, partial(self._submitted, request, ids, doubts)))

    def _read(self, given: Sequence[View], who: submission.Submitter) -> list[list[tuple[Job, Launch]]]:
        """Each submission's jobs, with the ids that they will have."""
        environ, folder, first = who.inherited(), str(self._driver.store.paths.data / "jobs"), self._next_id
        made = []
        for item in given:
            made.append(submission.read(item, who, environ, first, folder))
            first += len(made[-1])
        return made

    def _submitted(
        self,
        request: _Request,
        ids: Sequence[Sequence[int]],
        doubts: Sequence[Sequence[str]],
        outcome: Step | TandemError,
    ) -> None:
        if isinstance(outcome, TandemError):
            request.answer(outcome)
            return
        quotes: dict[int, Quote] = {quote.job: quote for quote in outcome.quotes if quote.moment == "submit"}
        request.answer(
            [
                {"ids": jobs, "quotes": [_quote_view(quotes[job]) for job in jobs if job in quotes], "warnings": doubt}
                for jobs, doubt in zip(ids, doubts, strict=True)
            ]
        )

    def _submitter(self, request: _Request) -> submission.Submitter:
        caller, params = request.caller, request.params
        as_root = os.geteuid() == 0
        environ = params.get("environ") or {}
        if not isinstance(environ, dict) or not all(isinstance(value, str) for value in environ.values()):
            raise _malformed(why="environ is an object of texts")
        cwd, umask = params.get("cwd", "/"), params.get("umask", 0o022)
        if not isinstance(cwd, str) or not isinstance(umask, int):
            raise _malformed(why="cwd is a text, umask a number")
        return submission.Submitter(
            uid=caller.uid if as_root else os.geteuid(),
            gid=caller.gid if as_root else os.getegid(),
            groups=_groups(caller.uid, caller.gid) if as_root else (),
            umask=umask & 0o777,
            cwd=cwd,
            environ={
                name: value for name, value in environ.items() if name and "=" not in name and "\0" not in name + value
            },
            trusted=caller.all,
        )

    def _checked(self, jobs: list[Job]) -> list[Job]:
        """Refuse what could never run; dependencies on ends that the machine has forgotten are settled here."""
        machine = self._driver.machine
        seen = set()
        for job in jobs:
            if job.parts not in seen:
                seen.add(job.parts)
                machine.check(replace(job, after=()))
        batch = {job.id for job in jobs}
        asked = {after.job for job in jobs for after in job.after}
        old = [job for job in asked if job not in batch and job not in machine.jobs and job not in machine.ended]
        ends = {job: machine.ended[job] for job in asked if job in machine.ended}
        ends |= queries.ends(self._driver.store.engine, old) if old else {}
        return [self._with_dependencies(job, batch, ends) if job.after else job for job in jobs]

    def _with_dependencies(self, job: Job, batch: set[int], ends: Mapping[int, State]) -> Job:
        machine = self._driver.machine
        kept: list[After] = []
        for after in job.after:
            live = after.job in machine.jobs and after.job not in machine.ended
            if live or (after.job in batch and after.job < job.id):
                kept.append(after)
            elif after.job not in ends:
                raise DependencyError(
                    given=f"a dependency on job {after.job}",
                    allowed="jobs that were submitted before",
                    todo="see `tandem queue` and `tandem history` for their ids",
                )
            elif after.ok and ends[after.job] is not State.DONE:
                raise DependencyError(
                    given=f"a dependency on the success of job {answers.name_of(self._driver, after.job)}, "
                    f"which ended as {ends[after.job]}",
                    allowed="jobs that ended well, or have not ended",
                    todo=f"submit that job again, or write {after.job}:any: any end will do",
                )
        return replace(job, after=tuple(kept))

    # -------------------------------------------------------------------------- changes to live jobs

    def _cancel(self, request: _Request) -> None:
        """``jobs``: ids, or ``all``: every live job of the caller; ``array``: the ids mean whole arrays."""
        lives = self._own_live(request)
        self._change(request, [ev.CancelAsked(job, request.caller.uid) for job in lives])

    def _hold(self, request: _Request) -> None:
        lives = self._own_live(request, State.QUEUED, State.BLOCKED, what="held")
        self._change(request, [ev.HoldAsked(job) for job in lives])

    def _release(self, request: _Request) -> None:
        self._change(request, [ev.ReleaseAsked(job) for job in self._own_live(request, State.HELD, what="released")])

    def _change(self, request: _Request, events: Sequence[ev.Event]) -> None:
        jobs = [
            event.job for event in events if not isinstance(event, ev.Submitted | ev.Tick) and hasattr(event, "job")
        ]

        def done(outcome: Step | TandemError) -> None:
            request.answer(outcome if isinstance(outcome, TandemError) else {"jobs": jobs})

        self._driver.ask(Change(tuple(events), done=done))

    def _own_live(self, request: _Request, *states: State, what: str = "") -> list[int]:
        """The jobs a change is about.

        Raises:
            JobStateError: One has ended, or is in none of `states`.
        """
        caller, machine = request.caller, self._driver.machine
        if request.params.get("all"):
            lives = [life for life in machine.jobs.values() if not life.ended and life.job.uid == caller.uid]
            return [life.id for life in lives if not states or life.state in states]
        wanted = answers.job_ids(request.params.get("jobs"))
        if request.params.get("array"):
            arrays = {job: job for job in wanted}
            wanted = [
                life.id
                for life in machine.jobs.values()
                if not life.ended and (life.job.array or (life.id,))[0] in arrays
            ]
        for job in wanted:
            answers.demand_own(self._driver, caller, job)
            life = machine.jobs.get(job)
            state = life.state if life is not None else None
            if life is None or life.ended:
                raise JobStateError(
                    given=f"{answers.said_of(self._driver, job)} has ended",
                    allowed="jobs that have not",
                    todo="see `tandem show`",
                )
            if states and state not in states:
                raise JobStateError(
                    given=f"{answers.said_of(self._driver, job)} is {state}, it cannot be {what}",
                    allowed="jobs that are " + " or ".join(states),
                    todo="see `tandem queue`",
                )
        return wanted

    def _profiled(self, request: _Request) -> None:
        """New profiles lie in the data folder: take them in."""
        if not request.caller.all:
            raise PermissionRefusedError(
                given="a profile for everybody's jobs",
                allowed="root, or whoever runs the daemon",
                todo="have an administrator profile it",
            )
        found = self._driver.profiled()

        def done(outcome: Step | TandemError) -> None:
            request.answer(outcome if isinstance(outcome, TandemError) else [event.profile.key for event in found])

        self._driver.ask(Change(tuple(found), done=done))

    # --------------------------------------------------------------------------- waiting and watching

    def _wait(self, request: _Request) -> None:
        """``jobs``: answered when all of them have ended."""
        jobs = answers.job_ids(request.params.get("jobs"))
        machine = self._driver.machine
        for job in jobs:
            answers.demand_own(self._driver, request.caller, job)
        left = {job for job in jobs if job in machine.jobs and not machine.jobs[job].ended}
        waiter = _Waiter(request, jobs, left)
        if left:
            self._waiters.append(waiter)
        else:
            self._answer_waiter(waiter)

    def _answer_waiter(self, waiter: _Waiter) -> None:
        rows = queries.jobs(self._driver.store.engine, waiter.jobs)
        names = ("id", "state", "exit_code", "signal", "reason", "attempt", "started_at", "ended_at", "ran_s")
        waiter.request.answer([{name: rows[job][name] for name in names} for job in waiter.jobs if job in rows])

    def _watch(self, request: _Request) -> None:
        """Every step from now on, in parts, until the client hangs up."""
        self._watchers.append(request)
        request.part({"now": self._driver.machine.now, "jobs": answers.queue(self._driver, request.caller, {})})

    def _stepped(self, turn: Turn) -> None:
        """A step is durable: tell those who wait or watch."""
        ended = {item.job for item in turn.step.instructions if isinstance(item, ev.JobEnded)}
        if ended and self._waiters:
            for waiter in self._waiters:
                waiter.left -= ended
            for waiter in [waiter for waiter in self._waiters if not waiter.left]:
                self._waiters.remove(waiter)
                self._answer_waiter(waiter)
        for request in list(self._watchers):
            if request.connection.unread_bytes > WATCHER_LAGS_MOST:
                request.connection.closed = True
                continue
            request.part(_turn_view(self._driver, turn, request.caller))

    # -------------------------------------------------------------------------------------- the rest

    def _log(self, request: _Request) -> None:
        """The event log in parts; then how many entries there were."""
        count = 0
        for piece in answers.log_entries(self._driver, request.caller):
            request.part(piece)
            count += len(piece)
        request.answer({"entries": count})

    def _ping(self, request: _Request) -> None:
        request.answer({"pid": os.getpid()})

    def _down(self, request: _Request) -> None:
        """``kill``: also stop all jobs. The connection ends when the daemon has stopped."""
        if not request.caller.all:
            raise PermissionRefusedError(
                given=f"stopping the daemon, asked for by uid {request.caller.uid}",
                allowed="its own user and root",
                todo="cancel your own jobs with `tandem cancel --all-mine`",
            )
        if request.params.get("kill"):
            self.end_all(request)
        else:
            self.stopping = True
            request.answer({"stopping": True})


_QUESTIONS: Mapping[str, Callable[[Driver, Caller, Mapping[str, Any]], object]] = {
    "queue": answers.queue,
    "show": answers.show,
    "log_path": answers.log_path,
    "nodes": answers.nodes,
    "history": answers.history,
    "promises": answers.promises,
    "coruns": answers.coruns,
    "profiles": answers.profiles,
    "doctor": answers.doctor,
}

_METHODS: Mapping[str, Callable[[Api, _Request], None]] = {
    "ping": Api._ping,
    "submit": Api._submit,
    "cancel": Api._cancel,
    "profiled": Api._profiled,
    "hold": Api._hold,
    "release": Api._release,
    "wait": Api._wait,
    "watch": Api._watch,
    "log": Api._log,
    "down": Api._down,
}


def _unmetered(jobs: Sequence[Job], nodes: Sequence[Node]) -> list[str]:
    """What a submission asks for that nobody can compare, as no node says how much of it there is."""
    needs = [part.need for part in jobs[0].parts] if jobs else []  # elements of an array ask for the same
    found = []
    for what, option, field in (("network", "nic", "nic_mbs"), ("memory", "membw", "membw_mbs")):
        if any(getattr(need, field) for need in needs) and all(getattr(node, field) is None for node in nodes):
            found.append(f"--{option} is not checked: no node says how much {what} bandwidth it has")
    return found


def _quote_view(quote: Quote) -> View:
    view: View = {"job": quote.job, "at": quote.at, "moment": quote.moment, "basis": quote.basis}
    for what, interval in (("start", quote.start), ("finish", quote.finish)):
        view[what] = [interval.low, interval.mid, interval.high]
    return view


def _turn_view(driver: Driver, turn: Turn, caller: Caller) -> View:
    """One step as this caller may see it."""
    own = {life.id: caller.owns(life.job.uid) for life in turn.touched}
    decisions = []
    for decision in turn.step.decisions:
        view = to_json(decision)
        if not own.get(decision.job, False):
            view.pop("reason", None)
        decisions.append(view)
    return {
        "now": turn.now,
        "jobs": [
            job_view.of_life(
                life, own=own[life.id], why=life.reason, beside=answers.neighbours(driver.machine, caller, life)
            )
            for life in turn.touched
        ],
        "decisions": decisions,
        "quotes": [_quote_view(quote) for quote in turn.step.quotes if own.get(quote.job, False)],
    }


def _groups(uid: int, gid: int) -> tuple[int, ...]:
    """The user's supplementary groups; none for a number without a name."""
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return ()


def _malformed(why: str) -> ConfigError:
    return ConfigError(
        given=f"a request that cannot be read ({why})",
        allowed='one line of JSON such as {"id": 1, "method": "queue", "params": {}}',
        todo="correct it",
    )
