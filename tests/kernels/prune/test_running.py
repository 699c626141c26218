"""From folder to folder: what is written, what is told, and the report."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tandem.core.errors import TandemError
from tandem.kernels.prune.blocks import blocks_of
from tandem.kernels.prune.outcome import Plan
from tandem.kernels.prune.page import layers_table, page, sentences
from tandem.kernels.prune.pattern import Pattern
from tandem.kernels.prune.perplexity import perplexity
from tandem.kernels.prune.running import run
from tandem.kernels.prune.text import Bytes, read
from tandem.report.page import render
from tests import disks
from tests.kernels.prune.models import folder_of, text_file


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("models") / "dense")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("texts") / "text.txt")


@pytest.mark.slow
def test_the_folder_holds_the_model_that_was_measured(dense: Path, text: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    plan = Plan(
        model=dense, out=tmp_path / "out", method="sparsegpt", pattern=Pattern(0.6), calibration=text, evaluation=text,
        samples=8, length=32, tuning_steps=3, distil=True,
    )  # fmt: skip
    outcome = run(plan, lambda what, done, of: told.append((what, done, of)))
    model = AutoModelForCausalLM.from_pretrained(plan.out)
    ids_N = read(text, Bytes(256), 256, "the text")
    assert outcome.tuned is not None
    assert outcome.before is not None
    assert perplexity(model, ids_N, 32).value == pytest.approx(outcome.tuned.value, rel=1e-5)
    before = perplexity(AutoModelForCausalLM.from_pretrained(dense), ids_N, 32)
    assert (outcome.before.value, outcome.before.tokens) == (pytest.approx(before.value, rel=1e-5), before.tokens)
    for block in blocks_of(model):
        for layer in block.layers.values():
            assert int((layer.weight_RK == 0).sum()) == round(0.6 * layer.weight_RK.numel())
    note = json.loads((plan.out / "config.json").read_text())["tandem_pruning"]
    assert note == {
        "method": "sparsegpt", "pattern": "unstructured", "owl": False, "sparsity": pytest.approx(0.6, abs=1e-3),
        "finetuned_steps": 3, "dense": ["lm_head", "model.embed_tokens"],
    }  # fmt: skip
    assert outcome.calibration_tokens == 8 * 32
    finished = {what: (done, of) for what, done, of in told}
    assert finished["pruning"] == (3, 3)
    assert finished["training"] == (3, 3)
    assert finished["perplexity, pruned"] == (2000, 2000)
    assert list(tmp_path.iterdir()) == [plan.out]
    html = (plan.out / "report.html").read_text()
    assert "model.layers.2.mlp.down_proj" in html
    assert f"{outcome.tuned.value:.3f}" in html


@pytest.mark.slow
def test_what_is_said(dense: Path, text: Path, tmp_path: Path) -> None:
    plan = Plan(
        model=dense, out=tmp_path / "out", method="wanda", pattern=Pattern(0.5), by_outliers=True, calibration=text,
        evaluation=text, samples=4, length=16,
    )  # fmt: skip
    outcome = run(plan)
    said = "\n".join(sentences(outcome))
    weights = sum(one.rows * one.columns for one in outcome.lost)
    assert "wanda with 50 % zeros, shared out among blocks by OWL" in said
    assert f"of {weights:,} weights in 21 linear layers are zero" in said
    assert "left dense: 16,384 weights" in said
    assert "in lm_head, model.embed_tokens" in said
    assert "no tokenizer: its tokens are taken to be bytes" in said
    assert "calibrated on 64 tokens in windows of 16" in said
    assert "(1,875 tokens predicted)" in said
    assert "trained" not in said
    assert len(layers_table(outcome).rows) == 21


@pytest.mark.slow
def test_magnitude_alone_needs_no_text(dense: Path, tmp_path: Path) -> None:
    outcome = run(Plan(model=dense, out=tmp_path / "out", method="magnitude", pattern=Pattern.n_of_m("2:4")))
    assert (outcome.before, outcome.after, outcome.calibration_tokens) == (None, None, 0)
    assert {one.zeros for one in outcome.lost} == {0.5}
    assert "Without a calibration text nothing is known of outputs." in render(page(outcome))
    assert torch.count_nonzero(
        AutoModelForCausalLM.from_pretrained(tmp_path / "out").model.layers[0].mlp.up_proj.weight
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "words"), [(256, "the model cannot be written"), (32, "the report cannot be written")]
)
def test_a_disk_that_is_full_leaves_nothing(width: int, words: str, tmp_path: Path) -> None:
    dense = folder_of(tmp_path / "dense", hidden_size=width, intermediate_size=3 * width)
    with disks.small(tmp_path / "small", 1) as folder:
        with pytest.raises(TandemError, match=f"{words}.*No space left"):
            run(Plan(model=dense, out=folder / "out", method="magnitude", pattern=Pattern(0.5)))
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": Path("nothing")}, "nothing is no model"),
        ({"calibration": Path("nothing")}, "the calibration text nothing: No such file"),
        ({"calibration": Path("/dev/null")}, "the calibration text /dev/null has 0 tokens"),
        ({"evaluation": Path("/dev/null")}, "the evaluation text /dev/null has 0 tokens"),
        ({"calibration": None}, "--method wanda without a calibration text"),
        ({"calibration": None, "method": "magnitude", "tuning_steps": 2}, "--finetune without a text"),
        ({"length": 65}, "--length 65; allowed: 2 to 64 tokens"),
        ({"length": 1}, "--length 1"),
    ],
)
def test_mistakes_leave_nothing(dense: Path, text: Path, tmp_path: Path, changed: dict, words: str) -> None:
    given = {"model": dense, "out": tmp_path / "out", "method": "wanda", "pattern": Pattern(0.5), "calibration": text}
    with pytest.raises(TandemError, match=words):
        run(Plan(**{**given, **changed}))
    assert list(tmp_path.iterdir()) == []
