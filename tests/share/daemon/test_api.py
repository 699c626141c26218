"""What the daemon answers to whom: two users of one system daemon, nonsense, and clients that do not read."""

import contextlib
import json
import os
import pickle
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tandem.cli.submit import _after as after_words
from tandem.core.errors import (
    ConfigError,
    DaemonError,
    DependencyError,
    ImpossibleDemandError,
    JobStateError,
    PermissionRefusedError,
    TandemError,
    UnknownJobError,
)
from tandem.core.process import keeper
from tandem.share import paths
from tandem.share.daemon import api, wire
from tandem.share.daemon.client import Client
from tandem.share.daemon.daemon import CONNECTIONS_OF_USER_MOST, Daemon, DaemonConfig
from tandem.share.daemon.meter import SHORTEST_S
from tests.share.conftest import Home
from tests.waiting import until

pytestmark = pytest.mark.slow  # a daemon's start alone takes more than half a second

ALICE, BOB = 12345, 12346
FOREVER = ["sh", "-c", "echo secret; while :; do sleep 0.05; done"]
SURROUNDINGS: dict[str, Any] = {"environ": {"PATH": os.environ["PATH"], "TOKEN": "hidden"}, "cwd": "/"}


def submit(client: Client, **job: object) -> int:
    ids: list[int] = client.call("submit", jobs=[job], **SURROUNDINGS)[0]["ids"]
    return ids[0]


def become(uid: int) -> None:
    """Be this user from now on, with no more rights than they have."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def as_user(uid: int, home: Home, act: Callable[[Client], Any]) -> Any:  # noqa: ANN401 - what `act` returns
    """Run `act` in a process of this numeric user; raises what it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer: object = "nothing"
        try:
            become(uid)
            with home.client() as client:
                answer = act(client)
        except BaseException as error:
            answer = error
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = pickle.loads(file.read())
    os.waitpid(child, 0)
    if isinstance(answer, BaseException):
        raise answer
    return answer


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Home]:
    """A daemon of root that serves everybody, in a folder that everybody may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    folder.chmod(0o755)
    locks = tmp_path / "locks"
    locks.mkdir()
    home = Home(folder / "home", locks)
    yield home.start()
    home.clear()
    shutil.rmtree(folder)


def test_jobs_run_as_who_submitted_them_and_nobody_else_sees_or_touches_them(system: Home) -> None:
    job = as_user(ALICE, system, lambda c: submit(c, argv=FOREVER, name="mine"))
    mine = as_user(ALICE, system, lambda c: submit(c, argv=["id"], cwd="/"))
    ended = as_user(ALICE, system, lambda c: c.wait([mine]))
    assert ended[0]["state"] == "done"
    files = as_user(ALICE, system, lambda c: c.log_path(mine))
    said = as_user(ALICE, system, lambda c: Path(files["stdout"]).read_text())
    assert said == f"uid={ALICE} gid={ALICE} groups={ALICE}\n"
    [seen] = as_user(BOB, system, lambda c: c.queue(why=True))
    assert (seen["id"], seen["uid"], seen["class"], seen["own"], seen["cpus"]) == (job, ALICE, "primary", False, 1.0)
    assert not {"name", "app", "argv", "env", "cwd", "stdout", "why", "reason"} & seen.keys()
    assert "mine" not in json.dumps(as_user(BOB, system, lambda c: c.promises()))
    told = as_user(BOB, system, lambda c: c.promises())
    assert {(one["id"], one["job"], one["uid"]) for one in told} == {(None, None, None)}
    assert {one["job"] for one in as_user(ALICE, system, lambda c: c.promises())} == {mine}
    refused: list[Callable[[Client], Any]] = [
        lambda c: c.show(job),
        lambda c: c.log_path(job),
        lambda c: c.cancel([job]),
        lambda c: c.hold([job]),
        lambda c: c.release([job]),
        lambda c: c.wait([job]),
        lambda c: c.show(mine),
        lambda c: c.down(),
        lambda c: list(c.log()),
        lambda c: submit(c, argv=["true"], priority=1),
    ]
    for attempt in refused:
        with pytest.raises(PermissionRefusedError):
            as_user(BOB, system, attempt)
    assert as_user(BOB, system, lambda c: c.history()) == []
    assert as_user(BOB, system, lambda c: c.coruns()) == []
    assert as_user(BOB, system, lambda c: c.cancel(every=True)) == []
    with system.client() as root:
        until(lambda: root.show(job)["state"] == "running", "the start")
        assert root.show(job)["name"] == "mine"
        pid = int((system.folder / f"attempts/{job}.1/journal").read_text().split("pid ")[1].split()[0])
        paths = [Path(files["stdout"]), Path(files["run_dir"]), system.folder / "tandem.db", system.folder / "attempts"]
        for path in [*paths, Path(f"/proc/{pid}/environ")]:
            with pytest.raises(PermissionError):
                as_user(BOB, system, lambda c, path=path: list(path.iterdir()) if path.is_dir() else path.read_bytes())
        with pytest.raises(PermissionError):
            as_user(BOB, system, lambda c: os.kill(pid, 9))
        assert as_user(ALICE, system, lambda c: c.cancel([job])) == [job]
        assert root.wait([job])[0]["state"] == "cancelled"


def test_no_answer_about_ones_own_jobs_tells_what_others_run(system: Home) -> None:
    """Beside them, once they are gone, and in every decision: which the log, that is root's, holds too."""
    theirs = as_user(BOB, system, lambda c: submit(c, argv=FOREVER, name="secret"))
    mine = as_user(ALICE, system, lambda c: submit(c, argv=FOREVER, name="mine"))
    until(lambda: as_user(ALICE, system, lambda c: c.show(mine)["state"]) == "running", "the start")

    def asked(client: Client) -> list[Any]:
        alone = [client.queue(why=True), client.history(), client.promises(), client.coruns(), client.nodes()]
        return [client.show(mine, decisions=True), *alone, client.log_path(mine), client.doctor()]

    told = as_user(ALICE, system, asked)
    [start] = told[0]["decisions"]
    assert (start["is"], start["reason"].split(":")[0]) == ("Start", f"beside job {theirs}")
    with pytest.raises(PermissionRefusedError):
        as_user(BOB, system, lambda c: c.show(mine, decisions=True))
    until(lambda: time.time() > told[0]["started_at"] + 2 * SHORTEST_S, "a stretch that is long enough to be kept")
    as_user(BOB, system, lambda c: c.cancel([theirs]))
    until(lambda: as_user(ALICE, system, lambda c: c.show(mine)["coruns"]), "the end of the stretch")
    told += as_user(ALICE, system, asked)
    assert "secret" not in json.dumps(told).replace("echo secret", "")
    assert "mine" in json.dumps(told)


def test_the_array_of_another_user_is_waited_for_as_a_whole(system: Home) -> None:
    theirs = as_user(BOB, system, lambda c: submit(c, argv=FOREVER, array="0-2", hold=True))
    said = as_user(ALICE, system, lambda c: after_words(c, f"{theirs}:any"))
    assert said == [f"{theirs + k}:any" for k in range(3)]
    mine = as_user(ALICE, system, lambda c: submit(c, argv=["true"], after=said))
    shown = as_user(ALICE, system, lambda c: c.show(mine))
    assert [after["job"] for after in shown["after"]] == [theirs, theirs + 1, theirs + 2]
    as_user(BOB, system, lambda c: c.cancel([theirs], array=True))
    assert as_user(ALICE, system, lambda c: c.wait([mine]))[0]["state"] == "done"


def test_a_watcher_sees_little_of_somebody_elses_jobs(system: Home) -> None:
    def watch(client: Client) -> list[Any]:
        stream = client.watch()
        seen = [next(stream)]
        (system.folder.parent / "watching").touch()
        while not any(job["state"] == "done" for turn in seen for job in turn["jobs"]):
            seen.append(next(stream))
        return seen

    system.folder.parent.chmod(0o777)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            until((system.folder.parent / "watching").exists, "the watcher")
            with system.client() as client:
                submit(client, argv=["true"], name="hush-hush")
        os._exit(0)
    seen = as_user(BOB, system, watch)
    os.waitpid(child, 0)
    assert "hush-hush" not in json.dumps(seen)
    assert [job["id"] for turn in seen for job in turn["jobs"] if job["state"] == "done"] == [1]
    decisions = [decision for turn in seen for decision in turn.get("decisions", ())]
    assert [decision["is"] for decision in decisions] == ["Start"]
    assert "reason" not in decisions[0]


def test_a_daemon_of_ones_own_serves_nobody_else(system: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    system.folder.parent.chmod(0o777)
    theirs = Home(system.folder.parent / "alice", system.folder.parent)
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(system.folder.parent))
    warm = DaemonConfig(paths.home(system.folder.parent / "warm"), engine_options={"membw": "off"})
    Daemon(warm)._close()  # every module is loaded by now: she may not be able to read this checkout
    native = keeper.keeper_path()
    assert native is not None
    monkeypatch.setenv("TANDEM_KEEPER", str(shutil.copy(native, system.folder.parent / "keeper")))
    child = os.fork()
    if child == 0:  # a process of ALICE is her own daemon
        with contextlib.suppress(BaseException):
            become(ALICE)
            Daemon(DaemonConfig(theirs.paths, engine_options={"membw": "off"})).run()
        os._exit(0)
    until(theirs.answers, "the other daemon")
    assert as_user(ALICE, theirs, lambda c: c.doctor()["uid"]) == ALICE
    with pytest.raises(TandemError, match="cannot be used"):  # the folder and the socket are closed to her neighbour
        as_user(BOB, theirs, lambda c: c.queue())
    theirs.folder.chmod(0o755)
    theirs.paths.socket.chmod(0o777)
    with pytest.raises(DaemonError, match=f"a process of another user listens .uid {ALICE}.: nothing was sent to it"):
        as_user(BOB, theirs, lambda c: c.queue())
    with socket.socket(socket.AF_UNIX) as connection:
        os.seteuid(BOB)
        connection.connect(str(theirs.paths.socket))
        os.seteuid(0)
        with pytest.raises(ConfigError, match=f"uid {BOB} on the daemon of uid {ALICE}"):
            Client(connection).queue()
    with theirs.client() as root:
        job = submit(root, argv=["id", "-u"])
        assert root.wait([job])[0]["state"] == "done"
        assert Path(root.log_path(job)["stdout"]).read_text() == f"{ALICE}\n"
        root.down()
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"nonsense", "ConfigError"),
        (b"[1]", "ConfigError"),
        (b"{}", "ConfigError"),
        (b'{"id": 7, "method": "queue", "params": []}', None),
        (b'{"id": 7, "method": "queue", "params": [1]}', "ConfigError"),
        (b'{"id": 7, "method": "qeueu"}', "ConfigError"),
        (b'{"id": 7, "method": "show", "params": {"job": "1"}}', "ConfigError"),
        (b'{"id": 7, "method": "show", "params": {"job": 1}}', "UnknownJobError"),
        (b'{"id": 7, "method": "show", "params": {"job": 99999999999999999999999}}', "UnknownJobError"),
        (b'{"id": 7, "method": "history", "params": {"limit": "x"}}', "ConfigError"),
        (b'{"id": 7, "method": "history", "params": {"limit": -1}}', "ConfigError"),
        (b'{"id": 7, "method": "history", "params": {"limit": true}}', "ConfigError"),
        (b'{"id": 7, "method": "history", "params": {"since": {}}}', "ConfigError"),
        (b'{"id": 7, "method": "promises", "params": {"since": Infinity}}', "ConfigError"),
        (b'{"id": 7, "method": "promises", "params": {"since": NaN}}', "ConfigError"),
        (b'{"id": 7, "method": "history", "params": {"since": 1%s}}' % (b"0" * 400), "ConfigError"),
        (b'{"id": 7, "method": "history", "params": {"limit": 0, "since": -1}}', None),
        (b'{"id": 7, "method": "submit", "params": {"jobs": {}}}', "ConfigError"),
        (b'{"id": 7, "method": "submit", "params": {"jobs": [], "environ": [1]}}', "ConfigError"),
        (b'{"id": 7, "method": "submit", "params": {"jobs": [{"argv": ["x"]}], "cwd": 1}}', "ConfigError"),
        (b"[" * 100_000, "ConfigError"),
        (b"\xff\xfe", "ConfigError"),
    ],
)
def test_nonsense_gets_an_error_and_the_connection_goes_on(served: Home, line: bytes, kind: str | None) -> None:
    with connect(served) as raw, raw.makefile("rb") as lines:
        raw.sendall(line + b"\n" + b'{"id": 8, "method": "ping"}\n')
        answer = json.loads(lines.readline())
        assert answer.get("error", {}).get("error") == kind
        assert json.loads(lines.readline())["id"] == 8


def connect(home: Home) -> socket.socket:
    """A bare connection."""
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(home.paths.socket))
    raw.settimeout(60)
    return raw


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One daemon for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "locks").mkdir()
    home = Home(folder / "home", folder / "locks")
    yield home.start()
    home.clear()


def test_requests_are_refused_with_what_is_wrong(served: Home) -> None:
    with served.client() as client:
        with pytest.raises(ImpossibleDemandError, match="1000 cores"):
            submit(client, argv=["true"], cpus=1000)
        with pytest.raises(ImpossibleDemandError, match="GPU"):
            submit(client, argv=["true"], gpus=1)
        with pytest.raises(DependencyError, match="999"):
            submit(client, argv=["true"], after=999)
        with pytest.raises(ConfigError, match="did you mean 'cpus'"):
            submit(client, argv=["true"], cpsu=1)
        with pytest.raises(UnknownJobError):
            client.wait([12345])
        with pytest.raises(ConfigError, match="did you mean 'queue'"):
            client.call("queu")
        job = submit(client, argv=["true"])
        client.wait([job])
        with pytest.raises(JobStateError, match="has ended"):
            client.cancel([job])
        with pytest.raises(JobStateError, match="has ended"):
            client.hold([job])
        failed = submit(client, argv=["false"])
        client.wait([failed])
        with pytest.raises(DependencyError, match=f"success of job {failed}, which ended as failed"):
            submit(client, argv=["true"], after=failed)
        held = submit(client, argv=["true"], hold=True)
        with pytest.raises(JobStateError, match="held"):
            client.hold([held])
        client.cancel([held])
        with pytest.raises(TandemError):  # an element of the batch that is refused refuses all of it
            client.submit([{"argv": ["true"]}, {"argv": ["true"], "cpus": 1000}])
        assert client.queue() == []


def test_a_dependency_can_point_back_within_a_batch_but_not_forward(served: Home) -> None:
    with served.client() as client:
        last = client.call("submit", jobs=[{"argv": ["true"]}], **SURROUNDINGS)[0]["ids"][0]
        made = client.submit([{"argv": ["true"]}, {"argv": ["true"], "after": last + 1}])
        assert client.wait([made[1]["ids"][0]])[0]["state"] == "done"
        with pytest.raises(DependencyError):
            client.submit([{"argv": ["true"], "after": last + 3}, {"argv": ["true"]}])


def test_whole_arrays_are_cancelled_by_their_first_id(served: Home) -> None:
    with served.client() as client:
        other = submit(client, argv=["true"], hold=True)
        ids = client.submit([{"argv": ["true"], "array": "0-4", "hold": True}])[0]["ids"]
        assert client.cancel([ids[0]], array=True) == ids
        assert {end["state"] for end in client.wait(ids)} == {"cancelled"}
        client.cancel([other])


def test_a_line_that_is_too_long_closes_only_its_own_connection(served: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(wire, "LINE_LONGEST", 1 << 20)
    with ours, theirs:
        ours.settimeout(60)
        connection = wire.Connection(theirs)
        for _ in range(100):
            ours.sendall(b"x" * 10_000)
            assert connection.receive() == []
        ours.sendall(b"x" * 50_000)
        with pytest.raises(ConfigError, match="1 MiB"):
            connection.receive()


def test_a_client_that_does_not_read_stops_only_itself(served: Home) -> None:
    ask = b'{"id": 1, "method": "doctor"}\n'
    with connect(served) as deaf:
        deaf.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):  # the daemon stops taking its requests
            while sent < 256 << 20:
                sent += deaf.send(ask * 1000)
                with served.client() as client:
                    assert client.call("ping")["pid"]
        assert sent < 256 << 20
        with served.client() as client:
            assert client.queue() == []


def test_one_user_cannot_take_all_connections(served: Home) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(served)) for _ in range(CONNECTIONS_OF_USER_MOST + 8)]
        refused = 0
        for raw in opened:
            with contextlib.suppress(OSError):
                raw.sendall(b'{"id": 1, "method": "ping"}\n')
            refused += b"error" in raw.recv(4096)
        assert 8 <= refused < 20  # connections of the tests before may still be open
    until(served.answers, "room for a connection")


def test_every_method_of_the_client_is_served() -> None:
    for method in ("queue", "show", "log_path", "nodes", "history", "promises", "coruns", "doctor"):
        assert method in api._QUESTIONS
    for method in ("submit", "cancel", "hold", "release", "wait", "watch", "log", "ping", "down"):
        assert method in api._METHODS
