"""Every reward by name: a finite number for each response, whatever the texts are, and the same each time."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.chat import scoring
from tandem.core import plug

TEXTS = st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40)), max_size=6)


@pytest.mark.parametrize("name", plug.names(scoring.FAMILY))
@given(rows=TEXTS)
def test_any_texts_get_a_finite_number_each(name: str, rows: list[tuple[str, str, str]]) -> None:
    rewarded = scoring.load(name, Path.cwd())
    prompts, responses, answers = ([row[i] for row in rows] for i in range(3))
    scores_B = rewarded(prompts, responses, answers)
    assert len(scores_B) == len(rows)
    assert all(math.isfinite(score) for score in scores_B.tolist())
    alone = [rewarded([p], [r], [a]).item() for p, r, a in rows]
    assert scores_B.tolist() == alone
