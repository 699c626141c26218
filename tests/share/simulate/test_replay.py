"""A stored day, replayed, gives the same decisions; one that was tampered with does not."""

import json
from pathlib import Path

import pytest

from tandem.core.errors import StoreError, UnknownPluginError
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tandem.share.simulate.replay import read_log, read_setup, replay, setup_entry, step_entry
from tandem.share.simulate.simulator import Simulator
from tandem.share.simulate.truth import Bandwidth
from tests.contract.test_policies import some_jobs

Entry = dict[str, object]
SETUP = Setup("hybrid", "proportional", {"quotes": 1})


@pytest.fixture(scope="module")
def log() -> list[Entry]:
    """The log of a simulated day, as text and back."""
    day = Simulator(some_jobs(80), SETUP, Bandwidth(), noise=0.03, seed=4, keep_log=True).run()
    entries = [setup_entry(SETUP), *(step_entry(*told) for told in day.log)]
    loaded: list[Entry] = json.loads(json.dumps(entries))
    return loaded


def test_a_simulated_day_replays_without_a_difference(log: list[Entry]) -> None:
    found = replay(log)
    assert not found.differences
    assert found.epochs == 1
    assert found.steps == len(log) - 1
    assert found.decisions > 80
    assert found.events > 240


def test_a_setup_comes_back() -> None:
    setup = Setup("las", "none", {"las_step_s": 3.0}, {"x": 1})
    assert read_setup(json.loads(json.dumps(setup_entry(setup)))) == setup


def test_one_changed_decision_is_noticed(log: list[Entry]) -> None:
    number = next(i for i, entry in enumerate(log) if i > 20 and entry.get("decisions"))
    changed = json.loads(json.dumps(log))
    changed[number]["decisions"][0]["reason"] = "because"
    (difference,) = replay(changed).differences
    assert difference.entry == number
    assert difference.now == log[number]["now"]
    assert difference.stored != difference.replayed


def test_a_missing_event_is_noticed(log: list[Entry]) -> None:
    number = next(i for i, entry in enumerate(log) if any(e["is"] == "Ended" for e in entry.get("events", [])))  # type: ignore[index]
    assert replay(log[:number] + log[number + 1 :]).differences


@pytest.mark.parametrize("damage", ["missing", "twice", "swapped"])
def test_a_log_of_numbered_steps_is_whole_or_refused(log: list[Entry], damage: str) -> None:
    numbered = [entry if "setup" in entry else entry | {"step": 70 + n} for n, entry in enumerate(log)]
    assert not replay(numbered).differences
    last = len(numbered) - 2  # nothing is decided after it that could differ
    for at in (20, last):
        part = {
            "missing": [],
            "twice": [numbered[at], numbered[at]],
            "swapped": [numbered[at + 1], numbered[at]],
        }[damage]
        damaged = [*numbered[:at], *part, *numbered[at + 1 + (damage == "swapped") :]]
        with pytest.raises(StoreError, match=f"line {at + 1 + (damage == 'twice')} of the log is step"):
            replay(damaged)


def test_another_policy_decides_otherwise(log: list[Entry]) -> None:
    assert replay(log, policy="exclusive").differences
    assert not replay(log, policy="hybrid").differences


def test_under_another_policy_only_what_is_done_counts(log: list[Entry]) -> None:
    changed = json.loads(json.dumps(log))
    for entry in changed[1:]:
        for decision in entry["decisions"]:
            decision["reason"] = "because"
        entry["decisions"] = [{"is": "Reserve", "job": 1, "at": 1.0, "nodes": ["n0"]}, *reversed(entry["decisions"])]
    assert replay(changed).differences, "of the policy itself every word counts"
    assert not replay(changed, policy="hybrid").differences
    number, start = next(
        (i, one)
        for i, entry in enumerate(changed)
        for one in entry.get("decisions", [])
        if one["is"] == "Start" and one["placement"]["shares"]
    )
    start["placement"]["shares"][0]["node"] = "elsewhere"
    assert [difference.entry for difference in replay(changed, policy="hybrid").differences] == [number]


def test_epochs_begin_with_snapshots(log: list[Entry]) -> None:
    """Every 40 steps a new epoch: all of its state comes from the snapshot's text."""
    from tandem.share.codec import from_json

    machine = Machine(SETUP)
    entries: list[Entry] = [log[0]]
    for number, entry in enumerate(log[1:], 1):
        machine.step(entry["now"], [from_json(event) for event in entry["events"]])  # type: ignore[arg-type, attr-defined]
        entries.append(entry)
        if number % 40 == 0:
            entries.append(
                json.loads(json.dumps(setup_entry(Setup("hybrid", "proportional", {"quotes": 1}, machine.snapshot()))))
            )
    found = replay(entries)
    assert found.epochs == 1 + (len(log) - 1) // 40
    assert not found.differences


@pytest.mark.parametrize("what", ["policy", "estimator"])
def test_an_epoch_that_can_no_longer_be_decided_is_left_out(log: list[Entry], what: str) -> None:
    gone: Entry = {"setup": log[0]["setup"] | {what: "gone:away"}}  # type: ignore[operator]
    found = replay([*log, gone, *log[1:9], gone, *log])
    assert (found.epochs, found.steps, found.differences) == (2, 2 * (len(log) - 1), ())
    (left,) = found.left_out
    assert left.now == log[1]["now"]
    assert "gone" in left.why.given
    with pytest.raises(UnknownPluginError, match="gone"):
        replay([gone, *log[1:9]])


def test_a_log_must_begin_with_a_setup(log: list[Entry]) -> None:
    with pytest.raises(StoreError, match="begin with a setup"):
        replay(log[1:])


def test_a_file_is_read_line_by_line(tmp_path: Path, log: list[Entry]) -> None:
    path = tmp_path / "day.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in log), encoding="utf-8")
    assert list(read_log(path)) == log
    for broken in ('{"now": 1}', "{", "[]", "7"):
        path.write_text(json.dumps(log[0]) + "\n" + broken + "\n", encoding="utf-8")
        with pytest.raises(StoreError, match="line 2"):
            list(read_log(path))


def test_an_empty_log_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="empty log"):
        replay([])
    (tmp_path / "bin.dat").write_bytes(bytes(range(256)))
    with pytest.raises(StoreError, match=r"bin\.dat, line 1"):
        list(read_log(tmp_path / "bin.dat"))
