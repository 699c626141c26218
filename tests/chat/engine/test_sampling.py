"""Drawing by inverse CDF against exact probabilities."""

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from tandem.chat.engine.generate import Sampling, generate
from tandem.chat.engine.sampling import draw
from tests.chat.engine.families import EOS, PAD, next_logits, probabilities, tiny


def settings_of(**changed: object) -> Sampling:
    return Sampling(**{"max_new_tokens": 1, "eos_id": EOS, **changed})


CASES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"top_k": 3},
    {"top_p": 0.7},
    {"temperature": 2.0, "top_k": 6, "top_p": 0.8},
]


@pytest.mark.slow
@pytest.mark.parametrize("changed", CASES)
def test_a_model_s_tokens_come_as_often_as_they_should(changed: dict[str, Any]) -> None:
    model, sampling, rows = tiny("llama"), settings_of(**changed), 20_000
    expected = probabilities(next_logits(model, [4, 2, 9]), sampling)
    generator = torch.Generator().manual_seed(1)
    rollout = generate(model, [[4, 2, 9]], sampling, group=rows, generator=generator, pad_id=PAD, slots=4096)
    counts = rollout.tokens_BT[:, 3].bincount(minlength=len(expected)).tolist()
    drawn = [(count, share) for count, share in zip(counts, expected, strict=True) if share > 0]
    assert sum(count for count, _ in drawn) == rows
    assert chisquare([count for count, _ in drawn], [rows * share for _, share in drawn]).pvalue > 0.01
    logps_B = torch.tensor(expected).log()[rollout.tokens_BT[:, 3]]
    assert torch.allclose(rollout.logps_BT[:, 3], logps_B, atol=1e-5)


@pytest.mark.slow
@given(
    logits=st.lists(st.floats(-20, 20), min_size=1, max_size=9),
    number=st.floats(0.0, 1.0, exclude_max=True),
    changed=st.sampled_from(CASES),
)
@example(logits=[0.0, 19.0], number=0.0, changed={"temperature": 0.5})
def test_the_token_is_where_the_running_sum_passes_the_number(
    logits: list[float], number: float, changed: dict[str, Any]
) -> None:
    sampling = settings_of(**changed)
    logits_V = torch.tensor(logits, dtype=torch.float64)
    tokens_1, logps_1 = draw(logits_V[None], torch.tensor([number], dtype=torch.float64), sampling)
    token, shares = int(tokens_1), _with_ties(logits_V, sampling)
    assert shares[token] > 0
    assert sum(shares[:token]) <= number + 1e-9
    assert sum(shares[: token + 1]) >= number - 1e-9
    assert math.isclose(float(logps_1), math.log(shares[token]), abs_tol=1e-6)


def _with_ties(logits_V: torch.Tensor, sampling: Sampling) -> list[float]:
    """Probabilities where tokens as likely as the last one that stays, stay too."""
    shares = probabilities(logits_V, sampling)
    least = min(float(logits_V[token]) for token, share in enumerate(shares) if share > 0)
    weights = [
        math.exp((logit - float(logits_V.max())) / sampling.temperature) if logit >= least - 1e-12 else 0.0
        for logit in logits_V.tolist()
    ]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("number", [0.0, 1.0 - 2.0**-53])
def test_no_number_draws_a_token_that_cannot_be(dtype: torch.dtype, number: float) -> None:
    logits_1V = torch.tensor([[-math.inf, 1.0, 2.0, -math.inf, -300.0]], dtype=dtype)
    tokens_1, logps_1 = draw(logits_1V, torch.tensor([number], dtype=torch.float64), settings_of())
    assert int(tokens_1) == (1 if number == 0.0 else 2)
    assert logps_1.dtype == torch.float32
    assert math.isclose(float(logps_1), math.log(torch.softmax(logits_1V.double(), 1)[0, tokens_1]), abs_tol=1e-6)


@pytest.mark.parametrize("temperature", [1e-7, 1e-40, 1e-320])
@pytest.mark.parametrize("changed", [{}, {"top_k": 2}, {"top_p": 0.9}])
def test_a_temperature_near_0_draws_among_the_likeliest(temperature: float, changed: dict[str, Any]) -> None:
    logits_BV = torch.tensor([[1.0, 40.0, 39.0, -math.inf], [-2.0, -3.0, -2.0, -300.0]])
    sampling = settings_of(temperature=temperature, **changed)
    for number, tokens in ((0.0, [1, 0]), (0.999, [1, 2])):
        numbers_B = torch.full((2,), number, dtype=torch.float64)
        tokens_B, logps_B = draw(logits_BV, numbers_B, sampling)
        assert tokens_B.tolist() == tokens
        assert logps_B.tolist() == pytest.approx([0.0, math.log(0.5)])
    assert not torch.isfinite(draw(logits_BV * math.nan, numbers_B, sampling)[1]).any()


def test_tokens_that_tie_at_the_edge_of_top_k_all_stay() -> None:
    logits_BV = torch.tensor([[1.0, 0.0, 0.0, -1.0]]).expand(300, 4)
    tokens_B, _ = draw(logits_BV, torch.arange(300, dtype=torch.float64) / 300, settings_of(top_k=2))
    assert set(tokens_B.tolist()) == {0, 1, 2}


def test_with_a_large_vocabulary_rare_tokens_come_as_often_as_they_should() -> None:
    """Of 50,000 tokens each half as likely as chance has it or twice: the upper and lower halves, and each tenth."""
    rows, vocabulary = 2_000, 50_000
    logits_V = torch.zeros(vocabulary)
    logits_V[1::2] = math.log(4.0)
    numbers_B = torch.rand(rows, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tokens = [draw(logits_V.expand(len(part), -1), part, settings_of())[0] for part in numbers_B.split(50)]
    tokens_B = torch.cat(tokens)
    counts = (tokens_B * 10 // vocabulary * 2 + tokens_B % 2).bincount(minlength=20)
    expected = [rows / 10 * share for _ in range(10) for share in (0.2, 0.8)]
    assert chisquare(counts.tolist(), expected).pvalue > 0.01
