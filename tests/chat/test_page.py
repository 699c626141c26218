"""The page of a run, whatever is there of it."""

import math
from collections.abc import Callable
from pathlib import Path

from tandem.chat import page
from tandem.chat import recipe as recipes
from tandem.chat.run_folder import RunFolder
from tandem.report.page import render


def test_a_run_that_has_only_begun_has_a_page(recipe_file: Callable[[str], Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.begun(recipes.load(recipe_file("[sft]\nsteps = 3\n"))):
        assert "Nothing was recorded yet." in render(page.of_run(run))


def test_an_evaluation_without_any_figure_says_so(recipe_file: Callable[[str], Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.begun(recipes.load(recipe_file("[sft]\nsteps = 3\n[eval]\n"), ["data.held_out=0"])):
        assert page.nothing_measured(run) == ""
        run.write_json("eval.json", {"figures": {"start": {}}, "samples": []})
        assert "The evaluation measured nothing: of the rows held out (data.held_out = 0) there is none" in render(
            page.of_run(run)
        )


def test_curves_figures_and_texts_are_shown_and_texts_are_escaped(
    recipe_file: Callable[[str], Path], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    with run.begun(recipes.load(recipe_file("[rl]\nsteps = 30\n"))):
        for step in range(1, 31):
            figures = {"rl/step": step, "rl/reward": step / 30, "rl/step_s": 0.1, "rl/loss": math.nan}
            run.record(step=step, total=30, **figures)
        run.record(step=30, total=30, **{"rl/step": 30, "rl/reward": 9.0, "rl/step_s": 0.1})  # a step done twice
        run.sample("rl", 1, "<b>prompt", "<script>", 0.5)
        with (run.path / "samples.jsonl").open("a") as file:
            file.write('{"stage": "rl", "st')  # cut short by a kill
        one = {"mean": 0.25, "low": 0.125, "high": 0.5, "rows": 16}
        run.write_json("eval.json", {"figures": {"rl": {"score": one}}, "samples": [{"prompt": "p", "rl": "<i>"}]})
        text = render(page.of_run(run))
    assert run.series("rl")["reward"][-1] == (30, 9.0)
    assert [sample["response"] for sample in run.samples()] == ["<script>"]
    assert "&lt;b&gt;prompt" in text
    assert "<b>prompt" not in text
    assert "0.250" in text
    assert "reward, last tenth" in text
    assert "No finite value was recorded." in text
