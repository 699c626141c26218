"""Policies side by side: the same day for everyone, stable names, curves that add up."""

import dataclasses
import math
from pathlib import Path

import pytest

from tandem.core.errors import UnknownPluginError
from tandem.report.page import render
from tandem.report.table import text_of
from tandem.share.simulate import case as cases
from tandem.share.simulate import compare
from tandem.share.workloads.workload import Workload

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def workload() -> Workload:
    return cases.workload(cases.load(EXAMPLES / "hybridshare.toml"))


@pytest.fixture(scope="module")
def days(workload: Workload) -> list[compare.PolicyDay]:
    return compare.play(workload, ["exclusive", "share"])


def test_table_has_the_known_answer(days: list[compare.PolicyDay]) -> None:
    table = compare.table(days)
    assert [column.name for column in table.columns] == ["metric", "exclusive", "share"]
    assert [text_of(table, 0, column) for column in range(3)] == ["Makespan ↓", "1m15s", "21s"]


def test_figures_are_worked_out_by_hand(days: list[compare.PolicyDay]) -> None:
    exclusive, share = (compare.figures(day.metrics) for day in days)
    # 25 rounds of 4 jobs end at 3, 6, ..., 75; 6 rounds of 16 end at 3, ..., 18 and the last 4 jobs at 21.
    assert exclusive["mean_completion_s"] == pytest.approx(sum(3 * i * 4 for i in range(1, 26)) / 100)
    assert share["mean_completion_s"] == pytest.approx((sum(3 * i * 16 for i in range(1, 7)) + 21 * 4) / 100)
    # 100 jobs of 2 GPUs for 3 s on 32 GPUs, over 75 s and 21 s.
    assert exclusive["gpu_utilisation"] == pytest.approx(600 / (32 * 75))
    assert share["gpu_utilisation"] == pytest.approx(600 / (32 * 21))
    assert share["cpu_utilisation"] == pytest.approx(1200 / (160 * 21))
    assert math.isnan(share["broken_bounds"])  # no job has a bound


def test_equal_seeds_give_equal_days(workload: Workload) -> None:
    terms = compare.Terms(noise=0.1, seed=3)
    one, other = (compare.play(workload, ["hybrid"], terms)[0].metrics for _ in range(2))
    assert one == other


def test_an_unknown_policy_is_refused_before_anything_is_played(workload: Workload) -> None:
    heard: list[str] = []
    with pytest.raises(UnknownPluginError, match="did you mean 'hybrid'"):
        compare.play(workload, ["share", "hybird"], progress=lambda policy, *_: heard.append(policy))
    assert heard == []


def test_the_page_holds_pictures_table_and_what_was_assumed(workload: Workload, days: list[compare.PolicyDay]) -> None:
    noted = dataclasses.replace(workload, notes=("<b>assumed</b>",))
    html = render(compare.page(noted, days, "title & all", "below"))
    for words in ("Side by side", "Over time", "What was promised", "&lt;b&gt;assumed&lt;/b&gt;", "title &amp; all"):
        assert words in html


def test_levels_add_up_to_what_was_held(days: list[compare.PolicyDay]) -> None:
    outcomes = days[1].day.outcomes
    held = [row for outcome in outcomes for row in outcome.intervals]
    steps = compare._level(held, 3, 32_000, 0.0)
    assert steps.area == pytest.approx(600 / 32)
    assert max(steps.values) == 1.0
    assert steps.values[-1] == 0.0
    queue = compare._queue(outcomes, 0.0)
    assert queue.area == pytest.approx(sum((o.started or 0.0) - o.submitted for o in outcomes))
    assert queue.values[0] == 84


def test_a_workload_without_jobs_is_described(workload: Workload) -> None:
    empty = Workload(workload.nodes, (), "empty")
    (day,) = compare.play(empty, ["share"])
    assert compare.figures(day.metrics)["jobs"] == 0
    assert compare.describe(empty)["gpus"] == 32
    assert "empty" in render(compare.page(empty, [day], "empty", ""))
