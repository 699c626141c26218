"""OWL's shares against its equations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.kernels.prune import owl

shares = st.lists(st.floats(0.0, 0.2), min_size=1, max_size=12)


@pytest.mark.slow
@given(shares, st.floats(0.01, 0.99), st.data())
def test_the_mean_over_weights_is_the_whole_and_outliers_keep_more(
    found: list[float], sparsity: float, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(found), max_size=len(found)))
    given_ = owl.allocate(found, weights, sparsity)
    assert sum(s * w for s, w in zip(given_, weights, strict=True)) / sum(weights) == pytest.approx(sparsity)
    assert all(-1e-12 <= s < 1 for s in given_)
    assert max(given_) - min(given_) <= 2 * owl.REACH + 1e-12
    for (d, s), (e, t) in zip(zip(found, given_, strict=True), list(zip(found, given_, strict=True))[1:], strict=False):
        assert (s - t) * (d - e) <= 1e-12


def test_shares_as_the_authors_programme_gives_them() -> None:
    """Densities: (D - min) / (max - min) * 2 λ, minus their mean, plus 1 - S."""
    found = torch.tensor([0.031, 0.012, 0.02, 0.05, 0.044], dtype=torch.float64)
    ratio = (found - found.min()) * (1 / (found.max() - found.min()) * 0.08 * 2)
    density = ratio - ratio.mean() + (1 - 0.7)
    assert owl.allocate(found.tolist(), [7] * 5, 0.7) == pytest.approx((1 - density).tolist())


def test_an_outlier_is_more_than_five_times_the_mean_of_the_whole_block() -> None:
    # ten scores with a mean of 3.2: 26 is above 16
    assert owl.outlier_share([torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 26]]), torch.tensor([[1.0, 1.0]])]) == 0.1
    assert owl.outlier_share([torch.ones(3, 3)]) == 0.0


def test_blocks_that_are_alike_get_the_same() -> None:
    assert owl.allocate([0.03, 0.03], [5, 9], 0.6) == [0.6, 0.6]
