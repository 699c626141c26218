"""Training under a mask: zeros stay zeros to the bit, the rest learns."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.kernels.prune.blocks import blocks_of
from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.layerwise import prune_model
from tandem.kernels.prune.pattern import Pattern
from tandem.kernels.prune.tuning import Tuning, distillation, tune
from tests.kernels.prune.models import ids, model_of

TEXT = torch.arange(400) % 13  # a text whose next letter is certain


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("taught", [False, True])
def test_zeros_stay_and_the_rest_learns(dtype: torch.dtype, taught: bool) -> None:
    model = model_of("llama").to(dtype)
    prune_model(model, "magnitude", Pattern(0.6))
    weights = [layer.module.weight for block in blocks_of(model) for layer in block.layers.values()]
    zero = [weight == 0 for weight in weights]
    before = [weight.clone() for weight in weights]
    tuning = Tuning(steps=12, learning_rate=1e-2, batch=4, length=32, weight_decay=0.1)
    losses = tune(model, TEXT, tuning, pruned=blocks_of(model), teacher=model_of("llama", 1) if taught else None)
    for weight, was, none in zip(weights, before, zero, strict=True):
        assert bool((weight[none] == 0).all())
        assert bool((weight[~none] != was[~none]).float().mean() > 0.9)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert all(p.grad is None for p in model.parameters())
    assert not model.training
    if not taught:
        assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_without_a_mask_zeros_do_not_stay() -> None:
    model = model_of("llama")
    prune_model(model, "magnitude", Pattern(0.6))
    tune(model, TEXT, Tuning(steps=2, learning_rate=1e-2, batch=2, length=16))
    weight = model.model.layers[0].mlp.up_proj.weight
    assert float((weight == 0).float().mean()) < 0.1


@pytest.mark.slow
def test_a_student_comes_to_predict_what_its_teacher_predicts() -> None:
    """On drawn tokens there is nothing to learn but the teacher."""
    teacher, student = model_of("llama", 3), model_of("llama", 4)
    with torch.no_grad():
        teacher.lm_head.weight *= 20.0
    ids_BT = ids(32, 5, batch=4)

    def distance() -> float:
        with torch.no_grad():
            pair = [m(input_ids=ids_BT).logits.flatten(0, 1) for m in (student, teacher)]
        return float(distillation(*pair, temperature=1.0))

    before = distance()
    tune(student, ids(4000), Tuning(steps=40, learning_rate=1e-2, from_teacher=1.0, length=32), teacher=teacher)
    assert distance() < 0.5 * before


@pytest.mark.slow
@given(st.integers(1, 4), st.integers(2, 6), st.floats(0.5, 4.0), st.integers(0, 1000))
def test_distillation_is_the_divergence_of_softened_predictions(n: int, v: int, t: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    student_NV, teacher_NV = (torch.randn(n, v, generator=rng, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for s, r in zip(student_NV.tolist(), teacher_NV.tolist(), strict=True):
        q = [math.exp(x / t) for x in s]
        p = [math.exp(x / t) for x in r]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / n
    assert float(distillation(student_NV, teacher_NV, t)) == pytest.approx(t * t * expected, abs=1e-12)
    assert float(distillation(teacher_NV, teacher_NV, t)) == pytest.approx(0.0, abs=1e-12)


def test_the_same_seed_trains_the_same() -> None:
    runs = [tune(model_of("llama"), TEXT, Tuning(steps=3, batch=2, length=8, seed=seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_texts_and_losses_that_nothing_can_be_learnt_from() -> None:
    with pytest.raises(PruneError, match="a text of 1 tokens to train on"):
        tune(model_of("llama"), ids(1), Tuning(steps=1))
    model = model_of("llama")
    model.lm_head.weight.data[0, 0] = math.nan
    with pytest.raises(PruneError, match="the loss of step 1 is nan"):
        tune(model, TEXT, Tuning(steps=1, batch=1, length=8))
    assert not model.training
