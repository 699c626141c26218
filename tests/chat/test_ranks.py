"""Several ranks train as one does: losses, rollouts and weights; they stop, go on and end together."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.chat.run_folder import RunFolder
from tandem.core import records
from tests.chat.launched import assert_alike, ended, launch, launched, wait_for
from tests.chat.test_train import DAPO, EVAL, GRPO, PPO, REWARD, SFT, SPARSE, run, same, weights

Recipe = Callable[[str], Path]

EARLY = GRPO.replace("capitals:score", "capitals:early")  # right now and then, by chance alone
DPO = '[rl]\nalgorithm = "dpo"\nsteps = 3\nprompts = 5\nminibatches = 2\nresponse_tokens = 6\nlearning_rate = 1e-2\n'


@pytest.mark.slow
def test_two_ranks_learn_by_all_of_ppo_what_one_does(recipe_file: Recipe, tmp_path: Path) -> None:
    """SFT, reward model, critic, mixture, average and adaptive KL; minibatches whose rows two ranks cannot halve."""
    file = recipe_file(SFT + REWARD + PPO + EVAL)
    overrides = ("rl.prompts=5", "reward.pairs=3", "sft.batch_tokens=200")
    one = run(file, tmp_path / "one", *overrides)
    status, out, err = ended(launch(file, tmp_path / "two", *overrides))
    assert status == 0, err
    two = RunFolder(tmp_path / "two")
    assert_alike(one, two, models=("start", "sft", "reward", "rl-average", "rl"))
    assert two.read_json("eval.json")["samples"] == one.read_json("eval.json")["samples"]
    phases = [record.phase for record in records.read(two.events) if record.phase]
    assert phases == ["train"] * 8 + ["generate", "score", "train"] * 5  # one rank wrote them
    assert out.count("report: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stages", "overrides", "ranks"),
    [
        (EARLY, ("rl.prompts=3", "sft.packing=false"), 2),  # one draws for two prompts, the other for one
        (EARLY, ("rl.prompts=1", "rl.micro_rows=3"), 3),  # two draw nothing
        (DAPO, (), 2),
        (DPO, ("lora.rank=2",), 2),
        (EARLY + SPARSE, (), 2),  # each prunes for itself
    ],
    ids=["grpo", "grpo-one-prompt", "dapo", "dpo-lora", "sparse"],
)
def test_ranks_with_unequal_shares_or_none_learn_what_one_does(
    stages: str, overrides: tuple[str, ...], ranks: int, recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + stages)
    one = run(file, tmp_path / "one", *overrides)
    many = launched(file, tmp_path / "many", *overrides, ranks=ranks)
    assert_alike(one, many, models=("sft", "rl"))


@pytest.mark.slow
def test_two_ranks_that_are_stopped_go_on_to_the_same_bits_and_one_goes_on_for_them(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + EARLY)
    whole = launched(file, tmp_path / "whole", "rl.steps=40").path
    stopped = tmp_path / "stopped"
    process = launch(file, stopped, "rl.steps=40")
    wait_for(stopped, 'rl/step":3', process)
    process.send_signal(signal.SIGINT)
    status, out, err = ended(process)
    assert status != 0
    assert err.count("tandem: stopped by SIGINT after step") == 1
    assert "report: " not in out
    assert RunFolder(stopped).checkpoint("rl").exists()
    copy = tmp_path / "copy"
    shutil.copytree(stopped, copy)
    launched(file, stopped, "rl.steps=40")
    assert same(weights(whole), weights(stopped))
    alone = run(file, copy, "rl.steps=40")
    assert_alike(RunFolder(whole), alone, models=("rl",), off=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_is_named_and_the_run_goes_on(victim: int, recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + EARLY)
    process = launch(file, tmp_path / "run", "rl.steps=100000")
    wait_for(tmp_path / "run", 'rl/step":2', process)
    ranks = {rank_of(pid): pid for pid in children(process.pid)}
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=60.0)
    assert process.returncode == 1
    assert f"tandem: rank {victim} of 2 is gone" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())
    done = RunFolder(tmp_path / "run").series("rl")["loss"][-1][0]
    again = launch(file, tmp_path / "run", "rl.steps=100000")
    wait_for(tmp_path / "run", f'rl/step":{done + 4},', again)
    again.send_signal(signal.SIGTERM)
    ended(again)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rank_of(pid: int) -> int:
    """Which rank a process is."""
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(next(word for word in words if word.startswith(b"RANK=")).removeprefix(b"RANK="))
