"""Reward functions: found, called, and what of them is refused."""

from decimal import Decimal
from pathlib import Path

import pytest

from tandem.chat import scoring
from tandem.chat.errors import RewardError
from tandem.chat.rewards import gsm8k
from tandem.core.errors import MissingPackageError, UnknownPluginError

MODULE = """
import math, sys
def good(prompts, responses, answers): return [float(r == a) for r, a in zip(responses, answers)]
def raises(prompts, responses, answers): return [1 / 0]
def nan(prompts, responses, answers): return [math.nan] * len(responses)
def infinite(prompts, responses, answers): return [math.inf] * len(responses)
def short(prompts, responses, answers): return [1.0]
def words(prompts, responses, answers): return ["well"] * len(responses)
def nothing(prompts, responses, answers): return None
def exits(prompts, responses, answers): sys.exit(0)
def huge(prompts, responses, answers): return [10**400] * len(responses)
no_function = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "its_rewards.py").write_text(MODULE)
    (tmp_path / "broken_rewards.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "exiting_rewards.py").write_text("import sys\nsys.exit('usage: rewards FILE')\n")
    return tmp_path


def test_a_function_beside_the_recipe_is_found_and_called(folder: Path) -> None:
    rewarded = scoring.load("its_rewards:good", folder)
    assert rewarded(["p", "p"], ["yes", "no"], ["yes", "yes"]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", r"raised ZeroDivisionError.*its_rewards.py:4"),
        ("nan", "returned nan for 'r1' to 'p1'"),
        ("infinite", "returned inf for 'r1'"),
        ("short", "returned 1 scores for 2 responses"),
        ("words", "returned list: could not convert"),
        ("nothing", "returned NoneType"),
        ("exits", "raised SystemExit"),
        ("huge", "returned list: int too large"),
    ],
)
def test_what_is_no_score_for_each_response_is_refused(name: str, told: str, folder: Path) -> None:
    rewarded = scoring.load(f"its_rewards:{name}", folder)
    with pytest.raises(RewardError, match=told):
        rewarded(["p1", "p2"], ["r1", "r2"], ["a", "a"])


def test_names_that_stand_for_nothing_are_refused(folder: Path) -> None:
    with pytest.raises(UnknownPluginError, match="did you mean 'gsm8k'"):
        scoring.load("gsm8", folder)
    with pytest.raises(UnknownPluginError, match="has no 'goood'"):
        scoring.load("its_rewards:goood", folder)
    with pytest.raises(UnknownPluginError, match=r"there is no module 'its_reward'.*did you mean 'its_rewards'"):
        scoring.load("its_reward:good", folder)
    with pytest.raises(RewardError, match="is no function"):
        scoring.load("its_rewards:no_function", folder)
    with pytest.raises(MissingPackageError, match="nothing_of_that_name"):
        scoring.load("broken_rewards:score", folder)
    with pytest.raises(RewardError, match="cannot be imported: SystemExit: usage: rewards FILE"):
        scoring.load("exiting_rewards:score", folder)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 48 + 24 = 72.\n#### 72", "72"),
        ("#### 1,234", "1234"),
        ("A: $10.50", "10.50"),
        ("it is -3", "-3"),
        ("#### 5\n#### 6 apples of 7", "6"),
        ("first 3, then 4", "4"),
        ("no number", None),
        ("", None),
        ("#### none", None),
    ],
)
def test_the_final_number_of_a_solution(text: str, number: str | None) -> None:
    assert gsm8k.final_number(text) == (None if number is None else Decimal(number))


def test_gsm8k_compares_numbers_not_texts() -> None:
    scores = gsm8k.score([""] * 4, ["#### 72.0", "#### 71", "seventy-two", "A: 72"], ["so #### 72"] * 4)
    assert scores == [1.0, 0.0, 0.0, 1.0]
    assert gsm8k.score([""], ["none"], ["none"]) == [0.0]
