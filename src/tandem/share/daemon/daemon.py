"""The daemon: one thread, one loop. `python -m tandem.share.daemon` runs it in the foreground.

Each round takes in what clients and keepers have sent, makes one step of it, stores the step, answers and acts.
SIGTERM, SIGINT and SIGHUP (unless ignored, as under nohup) stop it; jobs run on, and the next daemon adopts them.
"""

import contextlib
import logging
import math
import os
import selectors
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from tandem.core import plug
from tandem.core.clock import Clock, SystemClock
from tandem.core.errors import ConfigError, DaemonError, DaemonStoppedError, TandemError
from tandem.core.units import counted
from tandem.share import paths as places
from tandem.share.daemon import machine_settings
from tandem.share.daemon.api import Api
from tandem.share.daemon.driver import Driver
from tandem.share.daemon.listener import Listener
from tandem.share.daemon.wire import Connection
from tandem.share.model import ENDS, ON_NODE, State
from tandem.share.node.engine import Engine, EngineContext
from tandem.share.paths import Paths
from tandem.share.scheduler.admission import check_options
from tandem.share.scheduler.cluster import Setup
from tandem.share.store import queries
from tandem.share.store.store import Store

CONNECTIONS_MOST = 1024
CONNECTIONS_OF_USER_MOST = 128

LOOK_S = 1.0
"""How often it is looked whether the socket's path is still there, in seconds."""

ASKED_S = 0.3
"""How long a daemon that has ended all jobs waits for another question before it ends, in seconds, ..."""

ASKED_MOST_S = 3.0
"""... and how long in all."""

_log = logging.getLogger(__name__)


class _EngineFile(Protocol):
    """What a file in `tandem.share.engines` exposes."""

    @staticmethod
    def make(context: EngineContext) -> Engine: ...


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """What a daemon is started with.

    Attributes:
        setup: Fields of `tandem.share.scheduler.cluster.Setup` that replace the stored ones.
        engine: Name of the engine.
        engine_options: The engine's own settings.
        tied_to: The reading end of a pipe: when the other end closes, the daemon ends, and all jobs with it.
    """

    paths: Paths
    setup: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "local"
    engine_options: Mapping[str, str] = field(default_factory=dict)
    tied_to: int | None = None


class Daemon:
    """The loop over clients and engine."""

    def __init__(self, config: DaemonConfig, clock: Clock | None = None) -> None:
        """Open everything; jobs of an earlier daemon are adopted.

        Raises:
            TandemError: Another daemon runs on the data folder, the database cannot be used, a bad option.
        """
        clock = clock or SystemClock()
        self._paths = config.paths
        places.prepare(config.paths)
        engine_file = cast("_EngineFile", plug.load("share.engines", config.engine, _EngineFile))
        store = Store.open(config.paths)
        try:
            told = machine_settings.taken_over(config.paths.data, config.engine_options)
            with machine_settings.explained(config.engine_options, told):
                engine = engine_file.make(EngineContext(config.paths, clock, options=told))
            if config.setup.get("options"):
                check_options([config.setup.get("policy") or _stored_policy(store)], config.setup["options"])
            with _policy_named(lambda: config.setup.get("policy") or _stored_policy(store)):
                self.driver = Driver(store, engine, clock, config.setup)
                self.driver.turn()
        except BaseException:
            store.close()
            raise
        self._clock = clock
        self._stopped_by = ""  # which signal
        self._asked_at = -math.inf
        machine_settings.keep(config.paths.data, told)
        self.api = Api(self.driver)
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._listener = Listener(config.paths)
        self._selector.register(self._listener.socket, selectors.EVENT_READ)
        self._look_at = 0.0
        self._deaf = ""  # why nobody can connect
        self._ousted: DaemonError | None = None  # why the data folder is no longer this daemon's
        for fileno in engine.filenos():
            self._selector.register(fileno, selectors.EVENT_READ, None)
        self._tied_to = config.tied_to
        if self._tied_to is not None:
            self._selector.register(self._tied_to, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Serve until somebody asks it to stop.

        Raises:
            DaemonError: The data folder is no longer its own.
        """
        with _signals(self._stop) as wakeup:
            self._selector.register(wakeup, selectors.EVENT_READ, wakeup)
            _log.info("process %d serves %s on %s", os.getpid(), self._paths.data, self._paths.socket)
            while not (self.api.ready_to_stop or self._ousted):
                self._round()
            self._answer_the_last()
        self._close()
        if self._ousted:
            raise self._ousted

    def _answer_the_last(self) -> None:
        """All jobs were ended: let those who waited for them ask how, until nobody has asked anything for a while."""
        self._asked_at = began = self._clock.monotonic()
        while self.api.ended_all and len(self._connections) > 1 and not self._ousted:
            until = min(self._asked_at + ASKED_S, began + ASKED_MOST_S)
            if self._clock.monotonic() >= until:
                return
            self._round(until)

    def _round(self, until: float = math.inf) -> None:
        """Wait for what happens next, at most until then, and see to it."""
        due = self.driver.due_at()
        until = min(until, self._look_at if due is None else min(due, self._look_at))
        timeout = max(0.0, until - self._clock.monotonic())
        somebody_new = False
        for key, mask in self._selector.select(timeout):
            if key.fileobj is self._listener.socket:
                somebody_new = True
            elif isinstance(key.data, Connection):
                self._serve(key.data, mask)
            elif isinstance(key.data, socket.socket):
                with contextlib.suppress(BlockingIOError):
                    key.data.recv(64)
            elif key.fd == self._tied_to:
                self._untied(key.fd)
        if not self._has_folder():
            return
        self.driver.turn()
        for connection in list(self._connections.values()):
            self._tend(connection)
        if somebody_new:  # after those who left made room
            self._accept()
        self._listen_on()

    def _has_folder(self) -> bool:
        """Whether the data folder is still this daemon's; if not, it says why, and takes no other folder for it."""
        try:
            self.driver.store.keep_lock()
        except DaemonError as error:
            _log.error("%s", error)
            self._ousted = error
        return self._ousted is None

    # -------------------------------------------------------------------------------------- clients

    def _listen_on(self) -> None:
        """Listen anew where the socket's path has gone."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        if not self._listener.is_lost():
            return
        fresh = self._fresh_listener()
        if fresh is None:
            return
        self._accept()  # who came before it had gone
        self._selector.unregister(self._listener.socket)
        self._listener.close()
        self._listener, self._deaf = fresh, ""
        self._selector.register(fresh.socket, selectors.EVENT_READ)

    def _fresh_listener(self) -> Listener | None:
        """Bind the path again, else one in the data folder: a runtime folder goes with its user's last login."""
        kept = replace(self._paths, socket=places.home(self._paths.data).socket)
        why = ""
        for here in dict.fromkeys((self._paths, kept)):
            try:
                fresh = Listener(here)
            except OSError as error:
                why = why or str(error)
                continue
            if here.socket != self._paths.socket:
                _log.warning("listening on %s from now on: %s", here.socket, why)
                self._paths = here
                self.driver.store.listen_at(here.socket)
            else:
                _log.warning("the socket %s had gone: made again", here.socket)
            return fresh
        if self._deaf != why:
            _log.error("nobody can connect: %s", why)
        self._deaf = why
        return None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # nobody waits any more, or no descriptor is left
            while True:
                self._welcome(self._listener.socket.accept()[0])

    def _welcome(self, accepted: socket.socket) -> None:
        connection = Connection(accepted)
        refusal = self._refusal(connection.peer.uid)
        if refusal is not None:
            connection.send({"id": None, "error": refusal.as_dict()})
            connection.close()
            return
        self._connections[connection.fileno()] = connection
        self._selector.register(connection, selectors.EVENT_READ, connection)

    def _refusal(self, uid: int) -> TandemError | None:
        """Why this user is not served, if they are not."""
        if not self._paths.shared and uid not in (0, os.geteuid()):
            return ConfigError(
                given=f"uid {uid} on the daemon of uid {os.geteuid()}",
                allowed="its own user and root",
                todo="start your own with `tandem up`",
            )
        theirs = Counter(connection.peer.uid for connection in self._connections.values())
        if theirs[uid] >= CONNECTIONS_OF_USER_MOST or len(self._connections) >= CONNECTIONS_MOST:
            return ConfigError(
                given=f"connection {theirs[uid] + 1} of uid {uid}",
                allowed=f"{CONNECTIONS_OF_USER_MOST} of each user, {CONNECTIONS_MOST} of all",
                todo="close some; one connection takes many requests",
            )
        return None

    def _serve(self, connection: Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            connection.flush()
        if not mask & selectors.EVENT_READ:
            return
        try:
            lines = connection.receive()
        except TandemError as error:
            connection.send({"id": None, "error": error.as_dict()})
            connection.closed = True
            return
        for line in lines:
            self._asked_at = self._clock.monotonic()
            self.api.handle(connection, line)

    def _tend(self, connection: Connection) -> None:
        """Drop who is gone; look for readiness to write only where something waits."""
        if connection.closed:
            self._selector.unregister(connection)
            del self._connections[connection.fileno()]
            self.api.gone(connection)
            connection.close()
            return
        wanted = selectors.EVENT_WRITE * connection.wants_to_write | selectors.EVENT_READ * connection.wants_to_read
        if self._selector.get_key(connection).events != wanted:
            self._selector.modify(connection, wanted, connection)

    # ------------------------------------------------------------------------------------- stopping

    def _stop(self, number: int) -> None:
        self.api.stopping = True
        self._stopped_by = f" by {signal.Signals(number).name}"

    def _untied(self, tied_to: int) -> None:
        if not os.read(tied_to, 64):
            _log.warning("who started this daemon for itself has ended: all jobs are stopped")
            self._selector.unregister(tied_to)
            self.api.end_all()

    def _close(self) -> None:
        """Hang up last: who waits for the end of the connection finds the data folder free."""
        if self._ousted:
            self._accept()  # who came through the socket in a folder that was moved
        self._listener.close()
        if not self._ousted:
            machine_settings.forget(self._paths.data)
        self.driver.close(settle=self._ousted is None)
        ends = self._ousted or DaemonStoppedError(
            given=f"the daemon was stopped{self._stopped_by}",
            allowed="one that runs",
            todo="ask again: `tandem` starts it; what it acknowledged is kept",
        )
        for connection in self._connections.values():
            connection.send({"id": None, "error": ends.as_dict()})
            connection.finish()
        self._selector.close()
        _log.info("stopped%s%s", self._stopped_by, _left(life.state for life in self.driver.machine.jobs.values()))


def _left(states: Iterable[State]) -> str:
    """What becomes of the jobs, in words, when the daemon has stopped."""
    live = [state for state in states if state not in ENDS]
    suspended = live.count(State.SUSPENDED)
    running = sum(state in ON_NODE for state in live) - suspended
    said = {
        "runs on": counted(running, "job"),
        "goes on once no other job holds a core": counted(suspended, "suspended job"),
        "waits for the next daemon": counted(len(live) - running - suspended, "job"),
    }
    return "".join(f"; {what}: {jobs}" for what, jobs in said.items() if not jobs.startswith("0 "))


@contextlib.contextmanager
def _policy_named(name: Callable[[], str]) -> Iterator[None]:
    """What a policy from elsewhere fails of is said in one line; the log has the rest."""
    try:
        yield
    except TandemError:
        raise
    except Exception as error:
        if ":" not in (policy := name()):
            raise
        _log.exception("policy %r", policy)
        raise DaemonError(
            given=f"under policy {policy!r}: {type(error).__name__}: {error}",
            allowed="a policy that starts",
            todo=f"correct it (the daemon's log says where), or take another: tandem up --policy {Setup().policy}",
        ) from error


def _stored_policy(store: Store) -> str:
    """The policy that a daemon goes on with where none is named."""
    epochs = queries.policies(store.engine)
    return epochs[-1][1] if epochs else Setup().policy


@contextlib.contextmanager
def _signals(stop: Callable[[int], None]) -> Iterator[socket.socket]:
    """Call `stop` with the signal's number, and wake the loop through the socket that is yielded."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: stop(number)) for number in numbers}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()
