"""The example as a user runs it, small; and its reward."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.chat import recipe as recipes
from tandem.chat.train import train

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat"


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("brackets", EXAMPLE / "brackets.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


BRACKETS = module()


@given(st.text("([{<", min_size=1, max_size=8))
def test_the_reward_is_for_closing_all_brackets_and_nothing_else(prompt: str) -> None:
    stack: list[str] = []
    right = BRACKETS.closed(prompt)
    for sign in prompt + right:
        if sign in "([{<":
            stack.append(sign)
        else:
            assert "([{<".index(stack.pop()) == ")]}>".index(sign)
    assert stack == []
    told = BRACKETS.score([prompt] * 4, [right, right[:-1], right + ")", ""], [""] * 4)
    assert told == [1.0, 0.0, 0.0, 0.0]


def test_demonstrations_are_as_often_wrong_as_is_said() -> None:
    rows = BRACKETS.rows(0)
    for depth, forgotten in BRACKETS.FORGOTTEN.items():
        of_depth = [row for row in rows if len(row["prompt"]) == depth]
        wrong = sum(row["response"] != row["answer"] for row in of_depth) / len(of_depth)
        assert wrong == pytest.approx(forgotten, abs=0.05)
        assert all(row["answer"].startswith(row["response"]) for row in of_depth)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_its_recipe_runs_from_the_script_to_the_figures(algorithm: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLE / "brackets.py"), "--out", str(tmp_path)], check=True, timeout=60)
    short = ["sft.steps=3", "reward.steps=3", "rl.steps=2", "rl.prompts=2", "eval.rows=8"]
    ours = [f"data.sources.0.path={tmp_path / 'rows.jsonl'}", f"rl.algorithm={algorithm}", *short]
    run = train(recipes.load(EXAMPLE / "brackets.toml", ours), tmp_path / "run", recipe_folder=EXAMPLE)
    figures = json.loads((run.path / "eval.json").read_text())["figures"]
    assert figures["rl"]["score"]["rows"] == 8
    assert len(run.series("rl")["reward"]) == 2


def test_the_recipe_of_word_problems_can_be_read() -> None:
    recipe = recipes.load(EXAMPLE / "gsm8k.toml")
    assert recipe.rl is not None
    assert recipe.rl.reward == "gsm8k"
