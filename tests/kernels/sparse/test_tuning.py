"""Choosing a way by measuring: the fastest, once, kept on disk, and a bad file is no harm."""

import functools
import itertools
import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tandem.core.durable import locked
from tandem.kernels.sparse import running, tuning
from tandem.kernels.sparse.backends import cpu
from tandem.kernels.sparse.format import SparseWeight, pack


class Clock:
    """Time that only passes when something is said to take it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def taking(self, seconds: float, seen: list[str], name: str) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            seen.append(name)
            self.now_s += seconds
            return torch.empty(0)

        return run


def choose(seconds: dict[str, float], seen: list[str], weight: SparseWeight, count: int = 8) -> str:
    clock = Clock()
    return tuning.chosen(
        weight,
        torch.float32,
        count,
        lambda _weight, _x: {name: clock.taking(s, seen, name) for name, s in seconds.items()},
        clock=clock,
    )


@pytest.fixture
def weight() -> SparseWeight:
    return pack(torch.eye(16))


def test_the_fastest_is_chosen_and_measured_only_once(weight: SparseWeight, tmp_path: Path) -> None:
    seen: list[str] = []
    assert choose({"lanes": 3.0, "lists": 1.0, "blocks": 2.0}, seen, weight) == "lists"
    assert seen
    seen.clear()
    assert choose({"lanes": 0.1, "lists": 1.0}, seen, weight) == "lists"
    assert not seen
    tuning.forget()
    assert choose({"lanes": 0.1, "lists": 1.0}, seen, weight) == "lists"
    assert not seen
    assert choose({"lanes": 0.1, "lists": 1.0}, seen, weight, count=16) == "lanes"
    (file,) = (tmp_path / "tuning").glob("sparse-tuning-*.json")
    assert sorted(json.loads(file.read_text()).values()) == ["lanes", "lists"]


def test_what_was_chosen_and_every_time_is_logged(weight: SparseWeight, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        choose({"lanes": 0.003, "blocks": 0.001}, [], weight, count=64)
    assert "16x16 bf16 0.1 x64 float32 1: blocks (blocks 1.00 ms, lanes 3.00 ms)" in caplog.text


def test_what_is_hopeless_is_tried_twice_and_left_alone(weight: SparseWeight) -> None:
    seen: list[str] = []
    assert choose({"lanes": 1.0, "lists": 2.0, "blocks": 9.0}, seen, weight) == "lanes"
    assert [seen.count(name) for name in ("lanes", "lists", "blocks")] == [7, 7, 2]


def test_what_was_disturbed_at_every_short_try_so_far_is_tried_again(weight: SparseWeight) -> None:
    """Two tries of a tenth of a millisecond may lie within one slice of time that somebody else had the core."""
    now_s, tries = 0.0, 0

    def run(name: str) -> torch.Tensor:
        nonlocal now_s, tries
        tries += name == "lanes"
        now_s += 0.0002 if name == "blocks" else 0.0035 if tries < 3 else 0.0001
        return torch.empty(0)

    def candidates(_: SparseWeight, __: torch.Tensor) -> dict[str, tuning.Candidate]:
        return {name: functools.partial(run, name) for name in ("lanes", "blocks")}

    assert tuning.chosen(weight, torch.float32, 32, candidates, clock=lambda: now_s) == "lanes"
    assert tries == 7


@pytest.mark.parametrize("text", ["no json", "[1]", '{"16x16": "somehow"}'])
def test_a_file_that_makes_no_sense_is_measured_again(weight: SparseWeight, tmp_path: Path, text: str) -> None:
    choose({"lanes": 1.0}, [], weight)
    (file,) = (tmp_path / "tuning").glob("*.json")
    file.write_text(text)
    tuning.forget()
    assert choose({"lists": 1.0}, [], weight) == "lists"


@pytest.mark.parametrize("word", ["7 splits", "blocks", "", 3])
def test_a_word_that_is_no_way_of_the_product_is_measured_again(
    weight: SparseWeight, tmp_path: Path, word: object
) -> None:
    choose({"lanes": 1.0}, [], weight)
    (file,) = (tmp_path / "tuning").glob("*.json")
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: word}))
    tuning.forget()
    assert choose({"lanes": 2.0, "lists": 1.0}, [], weight) == "lists"
    assert json.loads(file.read_text()) == {key: "lists"}


def test_a_graph_is_not_made_of_a_word_that_is_no_layout(
    weight: SparseWeight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnGpu:
        is_cuda, dtype = True, torch.float32

        def __len__(self) -> int:
            return 8

    def layout() -> str:
        return running.layout_for("triton", weight, OnGpu())  # type: ignore[arg-type]

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert layout() == ""
    tuning.chosen(weight, torch.float32, 8, lambda _weight, _x: {"1 splits": lambda: torch.empty(0)}, by="triton")
    assert layout() == "1 splits"
    (file,) = (tmp_path / "tuning").glob("*.json")
    for word in ("lists", "7 splits", "blocks"):
        file.write_text(file.read_text().replace("1 splits", word))
        tuning.forget()
        assert layout() == ""
        file.write_text(file.read_text().replace(word, "1 splits"))


def test_processors_of_one_name_share_no_choice_where_their_instructions_differ(
    weight: SparseWeight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in cpu.paths():
        monkeypatch.setattr(cpu, "best_path", lambda path=path: path)
        running.way_for(weight, torch.ones(8, weight.cols))
    (file,) = (tmp_path / "tuning").glob("*.json")
    assert {key.split()[0] for key in json.loads(file.read_text())} == set(cpu.paths())


def test_a_folder_that_cannot_be_written_is_no_harm(
    weight: SparseWeight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TANDEM_SPARSE_TUNING", str(tmp_path / "file" / "under"))
    assert choose({"lanes": 1.0}, [], weight) == "lanes"
    assert choose({"lanes": 1.0}, [], weight, count=32) == "lanes"
    assert caplog.text.count("cannot be kept") == 1


def test_a_user_without_a_home_measures_in_each_process(
    weight: SparseWeight, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("TANDEM_SPARSE_TUNING", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: 2**31 - 77)  # whom the system does not know
    assert choose({"lanes": 1.0}, [], weight) == "lanes"
    assert "cannot be kept in /dev/null/no-home-folder/" in caplog.text
    seen: list[str] = []
    assert choose({"lists": 1.0}, seen, weight) == "lanes"
    assert not seen


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_of_processes_that_measure_at_once_all_choices_are_kept_and_the_first_holds(
    weight: SparseWeight, tmp_path: Path
) -> None:
    forked = multiprocessing.get_context("fork")
    both, told = forked.Barrier(2, timeout=60), forked.SimpleQueue()

    def measure(mine: str, other: str, counts: list[int]) -> None:
        assert tuning.known(weight, torch.float32, 8) == ""  # the file is read
        both.wait()
        told.put({count: choose({mine: 1.0, other: 2.0}, [], weight, count) for count in counts})

    processes = [
        forked.Process(target=measure, args=args)
        for args in (("lanes", "lists", [8, 16, 32]), ("lists", "lanes", [32, 8, 64]))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = told.get(), told.get()
    (file,) = (tmp_path / "tuning").glob("*.json")
    kept = {int(key.split()[3][1:]): way for key, way in json.loads(file.read_text()).items()}
    assert kept.keys() == {8, 16, 32, 64}
    assert first.items() <= kept.items()
    assert second.items() <= kept.items()


def test_a_lock_that_another_does_not_let_go_of_is_no_harm(
    weight: SparseWeight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choose({"lanes": 1.0}, [], weight)
    (file,) = (tmp_path / "tuning").glob("*.json")
    monkeypatch.setattr(tuning, "_PATIENCE_S", 0.0)
    with locked(file.with_suffix(".lock")):
        assert choose({"lists": 1.0}, [], weight, count=16) == "lists"
        monkeypatch.setattr(tuning, "locked", None)  # it is not tried again
        assert choose({"blocks": 1.0}, [], weight, count=32) == "blocks"
    assert caplog.text.count("without a lock from now on: another process holds it") == 1
    assert sorted(json.loads(file.read_text()).values()) == ["blocks", "lanes", "lists"]


def test_what_was_chosen_can_be_asked_for_without_measuring(weight: SparseWeight) -> None:
    assert tuning.known(weight, torch.float32, 8) == ""
    choose({"lanes": 3.0, "lists": 1.0}, [], weight)
    assert tuning.known(weight, torch.float32, 8) == "lists"
    tuning.forget()
    assert tuning.known(weight, torch.float32, 8) == "lists"  # as a later process does
    assert tuning.known(weight, torch.float32, 16) == tuning.known(weight, torch.float32, 8, by="cuda") == ""


def test_counts_fall_into_powers_of_two() -> None:
    for count, above in itertools.product(range(1, 70), [1]):
        bucket = tuning.bucket(count + above - 1)
        assert bucket >= count
        assert bucket < 2 * count or count == 1


def test_measuring_draws_none_of_the_programs_random_numbers(weight: SparseWeight) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    seen: list[str] = []
    choose({"lanes": 1.0, "lists": 2.0}, seen, weight)
    assert seen
    assert torch.equal(torch.rand(3), expected)
