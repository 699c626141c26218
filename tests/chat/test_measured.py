"""Figures that are older than the recipe's evaluation or than a model are told to be."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tandem.chat import evaluating, evaluation, measured, page
from tandem.chat import recipe as recipes
from tandem.chat.errors import DivergedError, StageError
from tandem.chat.run_folder import RunFolder
from tandem.chat.train import train
from tandem.report.page import render
from tests.chat.small import model_of, turns

RL = '[rl]\nalgorithm = "{}"\nreward = "measured_reward:score"\nsteps = 1\nprompts = 2\nresponse_tokens = 4\n'
EVAL = "[eval]\nrows = 2\ntemperature = 1.0\n"

Recipe = Callable[[str], Path]


def run(file: Path, *stages: str, asked: tuple[str, ...] = ()) -> RunFolder:
    (file.parent / "measured_reward.py").write_text(
        "def score(prompts, responses, answers):\n    return [float(len(r)) for r in responses]\n"
    )
    return train(recipes.load(file, asked), file.parent / "run", recipe_folder=file.parent, stages=stages or None)


def test_another_temperature_is_told_until_it_is_measured_with(recipe_file: Recipe) -> None:
    file = recipe_file("[sft]\nsteps = 1\n" + RL.format("grpo") + EVAL)
    done = run(file)
    assert measured.differs(done) == ""
    assert "another evaluation" not in render(page.of_run(done))
    done = run(file, "sft", asked=("eval.temperature=0.2",))
    assert "Figures of another evaluation (temperature 1.0, not 0.2)." in render(page.of_run(done))
    evaluating.again(done.path, file.parent, rows=None, temperature=None)
    assert measured.differs(done) == ""
    evaluating.again(done.path, file.parent, rows=1, temperature=0.5)
    assert "(rows 1, not 2; temperature 0.5, not 0.2)" in measured.differs(done)


def test_a_model_that_went_or_is_another_since_is_told(recipe_file: Recipe) -> None:
    done = run(recipe_file(RL.format("grpo") + EVAL))
    shutil.rmtree(done.model("rl"))
    assert "(the RL model is gone or was trained anew since)" in measured.differs(done)
    file = recipe_file(RL.format("rloo") + EVAL)
    assert "(the RL model is gone or was trained anew since)" in measured.differs(run(file, "rl"))
    assert measured.differs(run(file, "eval")) == ""


def test_a_start_that_went_or_is_another_since_is_told(recipe_file: Recipe) -> None:
    done = run(recipe_file("[sft]\nsteps = 1\n" + EVAL))
    shutil.rmtree(done.path / "models")
    told = "(the first model is gone or was trained anew since; the SFT model is gone or was trained anew since)"
    assert told in measured.differs(done)
    assert told in measured.differs(run(recipe_file("[sft]\nsteps = 1\n" + EVAL), "sft"))
    assert measured.differs(run(recipe_file("[sft]\nsteps = 1\n" + EVAL))) == ""


def test_figures_that_an_older_tandem_left_are_told_to_be_of_some_evaluation(recipe_file: Recipe) -> None:
    done = run(recipe_file(RL.format("grpo") + EVAL))
    kept = done.read_json("eval.json")
    del kept["basis"]
    done.write_json("eval.json", kept)
    assert "did not tell with what it was made" in render(page.of_run(done))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"basis": {}}', "figures: Field required"),
        ('{"figures": {}, "basis": {"rows": 2}}', "basis.temperature: "),
        ('{"figures": {}, "basis": 1}', "basis: "),
        ('{"figures": {"rl": 1}}', "figures.rl: "),
        ('{"figures": {"rl": {"score": {"mean": "high", "low": 0, "high": 1, "rows": 2}}}}', "figures.rl.score.mean: "),
        ('{"figures": {}, "samples": [1]}', "samples.0: "),
        ('{"figures": {"rl": {"score": {"mean": 1e999, "low": 0, "high": 1, "rows": 1}}}}', "rl.score: .*finite"),
        ('{"figures": {"rl": {"score": {"mean": NaN, "low": 0, "high": 1, "rows": 1}}}}', "rl.score: .*finite"),
        ('{"figures": {"rl": {"score": {"mean": 0, "low": 0, "high": Infinity, "rows": 1}}}}', "rl.score: .*finite"),
        ('{"figures": {"rl": {"score": {"mean": 1, "low": 0, "high": 1, "rows": -3}}}}', "rl.score: .*one row"),
        ("[1]", "it is no object"),
        ("[]", "it is no object"),
        ('""', "it is no object"),
        ("{}", "figures: Field required"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_figures_that_are_not_as_they_were_written_are_refused(
    text: str, told: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    done = RunFolder(tmp_path / "run")
    with done.begun(recipes.load(recipe_file("[sft]\nsteps = 1\n"))):
        (done.path / "eval.json").write_text(text)
    for read in (measured.differs, page.of_run, page.nothing_measured):
        with pytest.raises(StageError, match=rf"eval\.json, which is damaged \(.*{told}.*\); .* remove it"):
            read(done)


@pytest.mark.parametrize(("factor", "least"), [(1.0, 0.0), (20.0, 28.0), (1e4, 1e4)])
def test_a_perplexity_too_large_to_tell_is_told_by_its_loss(factor: float, least: float) -> None:
    model, rows = model_of("llama"), turns([(3, 5), (2, 4), (4, 9)])
    with torch.no_grad():
        model.lm_head.weight.mul_(factor)
    expected = evaluation.mean_loss(model, rows, 257)
    ((name, figure),) = evaluation.likelihood(model, rows, 257, "sft").items()
    assert expected > least
    assert name == ("loss, nats a token" if least else "perplexity")
    assert figure.mean == pytest.approx(expected if least else math.exp(expected))
    assert figure.low <= figure.mean <= figure.high


def test_a_model_whose_perplexity_is_too_large_to_tell_is_shown_beside_the_others(recipe_file: Recipe) -> None:
    sft = "[sft]\nsteps = 8\nlearning_rate = 10\nwarmup_steps = 0\ndecay = false\n"
    done = run(recipe_file(sft + EVAL))
    figures = measured.read(done).figures
    assert (figures["start"].keys(), figures["sft"].keys()) == ({"perplexity"}, {"loss, nats a token"})
    assert "loss, nats a token" in render(page.of_run(done))


def test_a_model_whose_loss_is_no_number_is_named(recipe_file: Recipe) -> None:
    file = recipe_file("[sft]\nsteps = 1\n" + EVAL)
    with pytest.raises(DivergedError, match=r"loss of model sft on held-out rows is nan; .* remove models/sft, lower"):
        run(file, asked=("sft.learning_rate=1e18", "sft.warmup_steps=0"))
    assert not (file.parent / "run" / "eval.json").exists()


def test_an_average_is_measured_by_its_name_and_told_when_it_is_another(recipe_file: Recipe) -> None:
    file = recipe_file(RL.format("grpo").replace("steps = 1", "steps = 1\nema = 0.9") + EVAL)
    done = run(file)
    evaluating.again(done.path, file.parent, rows=None, temperature=None, names=["rl-average"])
    assert measured.differs(done) == ""
    assert "average over RL" in render(page.of_run(done))
    shutil.rmtree(done.model("rl"))
    assert "(the average of the RL model is gone or was trained anew since)" in measured.differs(run(file, "rl"))


def test_what_was_measured_of_two_runs_alike_is_the_same(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(RL.format("grpo") + EVAL)
    first = json.loads((run(file).path / "eval.json").read_text())
    shutil.rmtree(tmp_path / "run")
    assert run(file).read_json("eval.json") == first
