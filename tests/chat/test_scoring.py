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
def interrupted(prompts, responses, answers): raise KeyboardInterrupt
def gives_up(prompts, responses, answers): raise type("Enough", (BaseException,), {})("of it")
def yields(prompts, responses, answers): yield 1 / 0
def large(prompts, responses, answers): return [-1e39] * len(responses)
def takes(prompts, responses, answers): return [len(responses.pop(0)), len(responses.pop(0))]
def two(prompts, responses): return [1.0] * len(responses)
async def waits(prompts, responses, answers): return [1.0] * len(responses)
class Unspeakable(Exception):
    def __str__(self): raise ValueError("no words")
def mute(prompts, responses, answers): raise Unspeakable
def mutters(prompts, responses, answers): yield mute(0, 0, 0)
class Waits:
    async def __call__(self, prompts, responses, answers): return [1.0] * len(responses)
waiting = Waits()
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
        ("nan", "returned nan for 'r1' to 'p1'; .*return 0 for what cannot be scored"),
        ("infinite", "returned inf for 'r1'"),
        ("short", "returned 1 scores for 2 responses"),
        ("words", "returned list: could not convert"),
        ("nothing", "returned NoneType"),
        ("exits", "raised SystemExit"),
        ("huge", "returned list: int too large"),
        ("gives_up", r"raised Enough: of it .*its_rewards.py:13"),
        ("mute", r"raised Unspeakable \(.*its_rewards.py:21\)"),
        ("mutters", "returned generator: Unspeakable; allowed"),
        ("yields", "returned generator: division by zero"),
        ("large", r"returned -1e\+39 for 'r1' to 'p1'; allowed: .* from -1e18 to 1e18; scale the scores down"),
    ],
)
def test_what_is_no_score_for_each_response_is_refused(name: str, told: str, folder: Path) -> None:
    rewarded = scoring.load(f"its_rewards:{name}", folder)
    with pytest.raises(RewardError, match=told):
        rewarded(["p1", "p2"], ["r1", "r2"], ["a", "a"])


def test_an_interrupt_stays_one_and_a_function_may_change_what_it_is_given(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        scoring.load("its_rewards:interrupted", folder)(["p"], ["r"], ["a"])
    responses = ["r", "rr"]
    assert scoring.load("its_rewards:takes", folder)(["p", "p"], responses, ["a", "a"]).tolist() == [1.0, 2.0]
    assert responses == ["r", "rr"]


def test_names_that_stand_for_nothing_are_refused(folder: Path) -> None:
    with pytest.raises(UnknownPluginError, match="did you mean 'gsm8k'"):
        scoring.load("gsm8", folder)
    with pytest.raises(UnknownPluginError, match=r"reward 'its_rewards:goood': .* has no 'goood'") as caught:
        scoring.load("its_rewards:goood", folder)
    assert "good" in caught.value.allowed.split(", ")
    assert "math" not in caught.value.allowed.split(", ")  # an import
    with pytest.raises(UnknownPluginError, match=r"there is no module 'its_reward'.*did you mean 'its_rewards'"):
        scoring.load("its_reward:good", folder)
    with pytest.raises(RewardError, match="is no function"):
        scoring.load("its_rewards:no_function", folder)
    with pytest.raises(RewardError, match=r"'its_rewards:two' takes \(prompts, responses\), not three lists: too many"):
        scoring.load("its_rewards:two", folder)
    for name in ("waits", "waiting"):
        with pytest.raises(RewardError, match=f"'its_rewards:{name}' is an async function"):
            scoring.load(f"its_rewards:{name}", folder)
    with pytest.raises(MissingPackageError, match="nothing_of_that_name"):
        scoring.load("broken_rewards:score", folder)
    with pytest.raises(UnknownPluginError, match="cannot be imported: SystemExit: usage: rewards FILE"):
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
