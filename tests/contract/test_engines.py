"""Every engine in `tandem.share.engines` passes the same life-cycle: start, end, stop, suspend, adopt."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import pytest

from tandem.core import plug
from tandem.core.clock import Clock, SystemClock
from tandem.share import events as ev
from tandem.share import paths
from tandem.share.model import Need, Placement, Share
from tandem.share.node.engine import Adoptee, Engine, EngineContext
from tandem.share.node.launch import Launch
from tests.waiting import until

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.02; done"


class EngineFile(Protocol):
    """What an engine's file exposes."""

    @staticmethod
    def make(context: EngineContext) -> Engine: ...


class Stage:
    """One engine with a data folder; events pile up in `seen`."""

    def __init__(self, name: str, folder: Path, clock: Clock | None = None) -> None:
        self.file = cast("EngineFile", plug.load("share.engines", name))
        self.paths = paths.home(folder)
        paths.prepare(self.paths)
        self.context = EngineContext(self.paths, clock or SystemClock(), options={"membw": "off"})
        self.engine = self.file.make(self.context)
        self.engine.adopt([])
        self.seen: list[ev.Event] = []
        self.began = time.time()

    def restart(self, *jobs: Adoptee) -> None:
        """Another engine takes over."""
        self.engine.close()
        self.engine = self.file.make(self.context)
        self.seen = []
        self.engine.adopt(jobs)

    def placement(self, core: int = 0) -> Placement:
        node = self.engine.nodes()[0]
        return Placement((Share(node.id, Need(), (node.cores[core],)),))

    def launch(self, job: int, script: str) -> Launch:
        folder = str(self.paths.job_dir(job))
        environ = {"PATH": os.environ["PATH"]}
        out, err = f"{folder}/stdout", f"{folder}/stderr"
        uid, gid = os.getuid(), os.getgid()
        return Launch(("sh", "-c", script), "/", environ, {}, uid, gid, (), 0o022, out, err, folder)

    def start(self, job: int, script: str, core: int = 0) -> Adoptee:
        placement, launch = self.placement(core), self.launch(job, script)
        self.engine.execute(ev.StartJob(job, 1, placement), launch)
        return Adoptee(job, 1, placement, launch)

    def poll(self) -> list[ev.Event]:
        """All that was seen so far, without its instants, which must be within this test."""
        for told in self.engine.poll():
            at = told.at if isinstance(told, ev.Started | ev.Ended) else None
            assert at is None or self.began - 0.01 <= at <= time.time(), told
            self.seen.append(replace(told, at=None) if isinstance(told, ev.Started | ev.Ended) else told)
        return self.seen

    def expect(self, event: ev.Event) -> None:
        """Wait until the engine says this."""

        until(lambda: event in self.poll(), f"{event}, after {self.seen}")


@pytest.fixture(params=plug.names("share.engines"))
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path))
    made = Stage(request.param, tmp_path / "home")
    yield made
    for job in range(1, 4):
        made.engine.execute(ev.StopJob(job, 1, "", 0.0, "the test is over"), None)
    alive = [job for job in range(1, 4) if (made.paths.attempt_dir(job, 1) / "journal").exists()]
    until(lambda: [made.engine.poll(), all(_ended(made, job) for job in alive)][1], "the end of all jobs")
    made.engine.close()


def _ended(stage: Stage, job: int) -> bool:
    text = (stage.paths.attempt_dir(job, 1) / "journal").read_text()
    return any(word in text for word in ("\nexit ", "\nexec-failed ", "\nbusy "))


def test_it_has_a_node_and_says_what_it_protects(stage: Stage) -> None:
    [node, *_] = stage.engine.nodes()
    assert node.id
    assert node.cpu_milli >= 1000
    assert node.mem_mib > 0
    assert stage.engine.describe()["engine"]
    assert all(fileno >= 0 for fileno in stage.engine.filenos())


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", ev.Ended(1, 1)),
        ("exit 9", ev.Ended(1, 1, code=9)),
        ("kill -TERM $$", ev.Ended(1, 1, signal=15)),
    ],
)
def test_a_job_starts_and_its_true_end_is_told(stage: Stage, script: str, end: ev.Event) -> None:
    stage.start(1, script)
    stage.expect(end)
    assert stage.seen.index(ev.Started(1, 1)) < stage.seen.index(end)


def test_a_stopped_job_ends(stage: Stage) -> None:
    stage.start(1, FOREVER)
    stage.expect(ev.Started(1, 1))
    stage.engine.execute(ev.StopJob(1, 1, "", 20.0, "cancelled"), None)
    stage.engine.execute(ev.StopJob(1, 1, "", 20.0, "cancelled"), None)  # instructions may come twice
    stage.expect(ev.Ended(1, 1, code=0) if _term_was_caught(stage) else ev.Ended(1, 1, signal=15))
    assert len(_ends(stage)) == 1


def _term_was_caught(stage: Stage) -> bool:
    """The signal may come before the shell has set its trap."""
    [event] = until(lambda: _ends(stage), "the end")
    return event.signal == 0


def _ends(stage: Stage) -> list[ev.Ended]:
    """All ends that were told so far."""
    return [event for event in stage.poll() if isinstance(event, ev.Ended)]


def test_stopping_what_never_ran_is_told_as_lost(stage: Stage) -> None:
    stage.engine.execute(ev.StopJob(1, 1, "", 1.0, "cancelled"), None)
    events = until(stage.engine.poll, "an answer")
    assert [type(event) for event in events if not isinstance(event, ev.ForeignUse)] == [ev.Ended]
    assert all(event.lost for event in events if isinstance(event, ev.Ended))


def test_a_suspended_job_stands_still_and_goes_on(stage: Stage) -> None:
    count = stage.paths.data / "count"
    stage.start(1, f"while :; do echo >> {count}; sleep 0.01; done")
    until(lambda: [stage.engine.poll(), count.exists()][1], "the first line")
    stage.engine.execute(ev.SuspendJob(1, 1), None)
    stage.expect(ev.SuspendDone(1, 1))
    size = count.stat().st_size
    stage.start(2, "sleep 0.2", core=-1)
    stage.expect(ev.Ended(2, 1))  # a while later
    assert count.stat().st_size == size
    stage.engine.execute(ev.ResumeJob(1, 1, stage.placement()), None)
    stage.expect(ev.ResumeDone(1, 1))
    until(lambda: count.stat().st_size > size, "the job to go on")


@pytest.mark.parametrize("when", ["before_spawn", "running", "ended"])
def test_another_engine_adopts(stage: Stage, when: str) -> None:
    if when == "before_spawn":  # the intent was stored, and nothing done
        job = Adoptee(1, 1, stage.placement(), stage.launch(1, "exit 4"))
    else:
        go = stage.paths.data / "go"
        job = stage.start(1, f"while [ ! -e {go} ]; do sleep 0.01; done; exit 4")
        stage.expect(ev.Started(1, 1))
        if when == "ended":
            stage.engine.close()
            go.touch()
            until(lambda: _ended(stage, 1), "the end while nobody watches")
            stage.engine = stage.file.make(stage.context)
    stage.restart(job)
    stage.expect(ev.Started(1, 1))
    (stage.paths.data / "go").touch()
    stage.expect(ev.Ended(1, 1, code=4))
    assert len(_ends(stage)) == 1
    stage.engine.forget(1, 1)
    folder = stage.paths.attempt_dir(1, 1)
    until(lambda: [stage.engine.poll(), not folder.exists()][1], "the attempt to be cleared away")


def test_what_belongs_to_no_job_is_killed(stage: Stage) -> None:
    stage.start(1, FOREVER)
    stage.expect(ev.Started(1, 1))
    stage.restart()
    until(lambda: _ended(stage, 1), "the end of a job that nobody knows")
    assert not [event for event in stage.poll() if not isinstance(event, ev.ForeignUse)]  # nobody is told
