"""Several ranks train as one does: losses, rollouts and weights; they stop, go on and end together."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from tandem.chat.run_folder import RunFolder
from tandem.core import records
from tests.chat.forked_runs import Run
from tests.chat.launched import assert_alike, ended, launch, launched, launched_all, wait_for
from tests.chat.test_train import DAPO, EVAL, GRPO, PPO, REWARD, SFT, SPARSE, run, same, weights

Recipe = Callable[[str], Path]

EARLY = GRPO.replace("capitals:score", "capitals:early")  # right now and then, by chance alone
DPO = '[rl]\nalgorithm = "dpo"\nsteps = 3\nprompts = 5\nminibatches = 2\nresponse_tokens = 6\nlearning_rate = 1e-2\n'


ALL = ("fsdp", "zero2", "zero3")

CASES = {
    # SFT, reward model, critic, mixture, average and adaptive KL; minibatches whose rows two ranks cannot halve.
    "ppo": (SFT + REWARD + PPO + EVAL, ("rl.prompts=5", "reward.pairs=3", "sft.batch_tokens=200"), 2, ALL),
    "grpo": (
        SFT + EARLY,
        ("rl.prompts=3", "sft.packing=false"),
        2,
        ALL,
    ),  # one draws for two prompts, the other for one
    "one-prompt": (SFT + EARLY, ("rl.prompts=1", "rl.micro_rows=3"), 3, ("fsdp", "zero3")),  # two draw nothing
    "dapo": (SFT + DAPO, (), 2, ("fsdp",)),
    "sparse": (SFT + EARLY + SPARSE, (), 2, ("fsdp",)),  # each prunes for itself
    "dpo-lora": (SFT + DPO, ("lora.rank=2",), 2, ("fsdp", "zero3")),
}
"""Stages, overrides, ranks, strategies."""


@pytest.mark.slow
def test_ranks_learn_what_one_process_does_by_each_strategy(
    recipe_file: Recipe, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Their shares are unequal or none; a run that broke off goes on to the same bits."""
    ones: dict[str, RunFolder] = {}
    runs: dict[tuple[str, str], Run] = {}
    for case, (stages, overrides, ranks, strategies) in CASES.items():
        file = recipe_file(stages).rename(tmp_path / f"{case}.toml")
        ones[case] = run(file, tmp_path / case, *overrides)
        for name in strategies:
            given = [f"strategy={name}", *overrides]
            runs[case, name] = Run(str(file), str(tmp_path / f"{case}-{name}"), ranks, given)
    broken = {}
    for name in ("zero2", "zero3"):  # the test below stops another
        whole = runs["grpo", name]
        part = replace(whole, folder=f"{whole.folder}-broken", env={"BREAK_AT_CALL": "4"}, fails=True)
        broken[name] = [part, replace(part, env={}, fails=False)]
    launched_all([*runs.values(), *chain(*broken.values())])
    for (case, name), many in runs.items():
        with subtests.test(case=case, strategy=name):
            models = ("start", "sft", "reward", "rl-average", "rl") if case == "ppo" else ("sft", "rl")
            assert_alike(ones[case], RunFolder(Path(many.folder)), models=models)
    for name, (part, _) in broken.items():
        with subtests.test("goes on", strategy=name):
            done = RunFolder(Path(part.folder))
            assert same(weights(Path(runs["grpo", name].folder)), weights(done.path))
            drawn = [record.phase for record in records.read(done.events)].count("generate")
            assert drawn == 7  # the fourth of five broke off, and the checkpoint was of two
    ppo = RunFolder(Path(runs["ppo", "fsdp"].folder))
    assert ppo.read_json("eval.json")["samples"] == ones["ppo"].read_json("eval.json")["samples"]
    phases = [record.phase for record in records.read(ppo.events) if record.phase]
    assert phases == ["train"] * 8 + ["generate", "score", "train"] * 5  # one rank wrote them


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
@pytest.mark.parametrize(("victim", "strategy"), [(0, "fsdp"), (1, "zero3")])
def test_a_rank_that_is_killed_is_named_and_the_run_goes_on(
    victim: int, strategy: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + EARLY)
    process = launch(file, tmp_path / "run", "rl.steps=100000", strategy=strategy)
    wait_for(tmp_path / "run", 'rl/step":2', process)
    ranks = {rank_of(pid): pid for pid in children(process.pid)}
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=60.0)
    assert process.returncode == 1
    assert f"tandem: rank {victim} of 2 is gone" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())
    done = RunFolder(tmp_path / "run").series("rl")["loss"][-1][0]
    again = launch(file, tmp_path / "run", "rl.steps=100000", strategy=strategy)
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
