"""Perplexity against its definition, token by token."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tandem.kernels.prune.perplexity import perplexity
from tests.kernels.prune.models import ids, model_of


class Uniform(nn.Module):
    """Knows nothing."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        del use_cache
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 50))


@pytest.mark.slow
@given(st.integers(2, 300), st.integers(2, 40))
def test_who_knows_nothing_wavers_between_all_tokens(tokens: int, length: int) -> None:
    found = perplexity(Uniform(), torch.arange(tokens) % 50, length)
    assert found.value == pytest.approx(50.0)
    assert found.tokens == tokens - -(-tokens // length)  # all but the first of each window


def test_a_text_shorter_than_a_window_is_one_window() -> None:
    model, ids_N = model_of("llama"), ids(7)
    assert perplexity(model, ids_N, 10) == perplexity(model, ids_N, 7)


def test_it_is_the_mean_over_tokens_each_given_those_before_it() -> None:
    model, ids_N = model_of("llama"), ids(23)
    told: list[tuple[int, int]] = []
    found = perplexity(model, ids_N, 10, lambda done, of: told.append((done, of)))
    logs = []
    for start in (0, 10, 20):
        window = ids_N[start : start + 10]
        for place in range(1, len(window)):
            with torch.no_grad():
                logits_V = model(input_ids=window[:place].unsqueeze(0)).logits[0, -1]
            logs.append(float(torch.log_softmax(logits_V, 0)[window[place]]))
    assert found.tokens == len(logs) == 20
    assert found.value == pytest.approx(math.exp(-sum(logs) / 20), rel=1e-4)
    assert told[-1] == (23, 23)
