"""Several runs on one page: means, intervals of Student's t, and runs that are not of one recipe."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tandem.chat import interval, several
from tandem.chat import recipe as recipes
from tandem.chat.errors import StageError
from tandem.chat.run_folder import RunFolder
from tandem.cli import main
from tandem.report.page import render
from tests.chat.small import write_rows

Write = Callable[[str], Path]


def runs_of(file: Path, folder: Path, scores: list[float], *overrides: str) -> list[RunFolder]:
    """Runs of 30 steps whose rewards rise to their scores."""
    runs = []
    for seed, score in enumerate(scores):
        run = RunFolder(folder / f"seed-{seed}")
        with run.begun(recipes.load(file, [f"seed={seed}", *overrides])):
            for step in range(1, 31):
                run.record(step=step, total=30, **{"rl/step": step, "rl/reward": score * step / 30, "rl/step_s": 0.1})
            one = {"mean": score, "low": 0.0, "high": 1.0, "rows": 16}
            run.write_json("eval.json", {"figures": {"rl": {"score": one}}, "samples": []})
        runs.append(run)
    return runs


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=16))
def test_an_interval_over_runs_is_students(values: list[float]) -> None:
    found = interval.of_runs(values)
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert found.high - found.mean == pytest.approx(half, rel=1e-3, abs=1e-9)
    assert found.mean - found.low == pytest.approx(half, rel=1e-3, abs=1e-9)


def test_of_one_run_there_is_a_mean_and_no_interval() -> None:
    found = interval.of_runs([0.5])
    assert (found.mean, found.rows) == (0.5, 1)
    assert math.isnan(found.low)


def test_the_command_tells_means_with_intervals_and_writes_the_page(recipe_file: Write, tmp_path: Path) -> None:
    runs = runs_of(recipe_file("[rl]\nsteps = 30\n"), tmp_path, [0.5, 0.6, 0.7])
    paths = [str(run.path) for run in runs]
    done = CliRunner().invoke(main.tandem, ["chat", "report", *paths, "--out", str(tmp_path / "all.html"), "--json"])
    assert done.exit_code == 0, done.output
    (figure,) = json.loads(done.stdout)["figures"]
    assert (figure["model"], figure["figure"], figure["runs"]) == ("after RL", "score", 3)
    assert figure["mean"] == pytest.approx(0.6)
    assert figure["high"] == pytest.approx(0.6 + 4.303 * 0.1 / math.sqrt(3), abs=1e-4)
    assert all("did not tell with what it was made" in told for told in json.loads(done.stdout)["differs"])
    text = (tmp_path / "all.html").read_text()
    assert text.count("did not tell with what it was made") == len(runs)
    assert "seeds 0, 1, 2" in text
    assert "Reinforcement learning" in text


def test_a_curves_mean_stands_where_all_runs_have_a_step() -> None:
    plot = several.curve([{1: 0.0, 2: 1.0, 3: 5.0}, {1: 2.0, 2: 3.0}], "reward", "")
    *_, band, mean = plot.plot.data
    assert list(mean.x) == [1, 2]
    assert list(mean.y) == [1.0, 2.0]
    assert max(band.y) == pytest.approx(2.0 + 12.706 * math.sqrt(2) / math.sqrt(2), rel=1e-6)


def test_runs_of_other_recipes_and_folders_that_are_none_are_refused(recipe_file: Write, tmp_path: Path) -> None:
    file = recipe_file("[rl]\nsteps = 30\n")
    (one,) = runs_of(file, tmp_path / "a", [0.5])
    (other,) = runs_of(file, tmp_path / "b", [0.5], "rl.prompts=3")
    with pytest.raises(StageError, match=r"differs from .* in rl\.prompts"):
        several.of_seeds([one, other])
    with pytest.raises(StageError, match="is no run"):
        several.of_seeds([one, RunFolder(tmp_path)])


def test_a_run_that_is_there_twice_and_damaged_figures_are_refused(recipe_file: Write, tmp_path: Path) -> None:
    runs = runs_of(recipe_file("[rl]\nsteps = 30\n"), tmp_path, [0.5, 0.6])
    with pytest.raises(StageError, match="leave out what is there twice"):
        several.of_seeds([runs[0], RunFolder(tmp_path / "x" / ".." / "seed-0")])
    (runs[0].path / "eval.json").write_text("}{")
    with pytest.raises(StageError, match=r"seed-0/eval.json, which is damaged"):
        several.of_seeds(runs)


@pytest.mark.parametrize("changed", [(), ("save_every_steps=7", "device=cpu")])
def test_a_copy_and_a_run_of_the_same_seed_are_refused(
    changed: tuple[str, ...], recipe_file: Write, tmp_path: Path
) -> None:
    file = recipe_file("[rl]\nsteps = 30\n")
    runs = runs_of(file, tmp_path / "a", [0.5, 0.6])
    (again,) = runs_of(file, tmp_path / "b", [0.7], *changed)
    with pytest.raises(StageError, match=r"a/seed-0 and .*b/seed-0, both of seed 0 with the same data and model"):
        several.of_seeds([*runs, again])


def test_runs_of_one_seed_on_data_of_their_own_have_a_page(recipe_file: Write, tmp_path: Path) -> None:
    file = recipe_file("[rl]\nsteps = 30\n")
    write_rows(tmp_path / "others.jsonl", 9)
    others = f"data.sources=[{{path='{tmp_path / 'others.jsonl'}'}}]"
    runs = [*runs_of(file, tmp_path / "a", [0.5]), *runs_of(file, tmp_path / "b", [0.6], others)]
    assert "seeds 0, 0" in render(several.of_seeds(runs))


def test_runs_without_figures_have_a_page(recipe_file: Write, tmp_path: Path) -> None:
    runs = runs_of(recipe_file("[rl]\nsteps = 30\n"), tmp_path, [0.5, 0.6])
    (runs[1].path / "eval.json").unlink()
    assert "No figure on held-out rows is there of all runs." in render(several.of_seeds(runs))
