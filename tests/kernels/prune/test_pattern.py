"""Which weights stay: exact counts, the right ones, and N:M to the letter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.pattern import Pattern, keep

shapes = st.tuples(st.integers(1, 9), st.integers(1, 23))
shares = st.floats(0.0, 0.999)


@st.composite
def scores(draw: st.DrawFn) -> torch.Tensor:
    rows, columns = draw(shapes)
    values = draw(st.lists(st.integers(0, 6), min_size=rows * columns, max_size=rows * columns))  # many alike
    return torch.tensor(values, dtype=torch.float32).view(rows, columns)


@pytest.mark.slow
@given(scores(), shares)
def test_a_layer_loses_exactly_its_share_and_none_that_is_worth_more_than_one_that_stays(
    scores_RK: torch.Tensor, sparsity: float
) -> None:
    mask_RK = keep(scores_RK, Pattern(sparsity), "layer")
    assert int((~mask_RK).sum()) == round(sparsity * scores_RK.numel())
    if mask_RK.any() and not mask_RK.all():
        assert scores_RK[~mask_RK].max() <= scores_RK[mask_RK].min()


@pytest.mark.slow
@given(scores(), shares)
def test_rows_lose_the_same_but_for_one_and_together_exactly_the_share(
    scores_RK: torch.Tensor, sparsity: float
) -> None:
    mask_RK = keep(scores_RK, Pattern(sparsity), "row")
    lost_R = (~mask_RK).sum(dim=1)
    assert int(lost_R.sum()) == round(sparsity * scores_RK.numel())
    assert int(lost_R.max() - lost_R.min()) <= 1
    for row_K, kept_K in zip(scores_RK, mask_RK, strict=True):
        if kept_K.any() and not kept_K.all():
            assert row_K[~kept_K].max() <= row_K[kept_K].min()


@pytest.mark.slow
@given(scores(), st.integers(2, 8), st.data())
def test_n_of_m_holds_in_every_group_and_takes_the_least(scores_RK: torch.Tensor, of: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, of - 1))
    mask_RK = keep(scores_RK, Pattern.n_of_m(f"{kept}:{of}"), "layer")
    for row_K, stays_K in zip(scores_RK.tolist(), mask_RK.tolist(), strict=True):
        for start in range(0, len(row_K), of):
            group, stays = row_K[start : start + of], stays_K[start : start + of]
            assert sum(stays) == min(kept, len(group))
            best = sorted(group, reverse=True)[: sum(stays)]
            assert sorted((v for v, s in zip(group, stays, strict=True) if s), reverse=True) == best


def test_of_equal_scores_the_leftmost_go() -> None:
    mask_RK = keep(torch.ones(2, 4), Pattern(0.5), "row")
    assert mask_RK.tolist() == [[False, False, True, True]] * 2


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(sparsity: float) -> None:
    with pytest.raises(PruneError, match="at least 0 and below 1"):
        Pattern(sparsity)
    with pytest.raises(PruneError, match=r"--sparsity 0\.6"):
        Pattern.share(sparsity)


@pytest.mark.parametrize("text", ["", "2", "4:2", "2:2", "0:4", "2:4:8", "a:b", "-2:4", "2.0:4"])
def test_what_is_not_n_of_m_is_refused(text: str) -> None:
    with pytest.raises(PruneError, match="as in --nm 2:4"):
        Pattern.n_of_m(text)


def test_patterns_in_words() -> None:
    assert (str(Pattern(0.6)), str(Pattern.n_of_m("2:4"))) == ("60 % zeros", "2:4")
