"""Whole runs: stages in their order and alone, what is refused before any, losses that are no numbers."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tandem.chat import evaluating, models, page
from tandem.chat import recipe as recipes
from tandem.chat.engine.errors import GenerationError
from tandem.chat.errors import DivergedError, RowsError, StageError
from tandem.chat.run_folder import RunFolder
from tandem.chat.train import train
from tandem.core import records
from tandem.core.errors import ConfigError, UnknownPluginError
from tandem.kernels.model_folder import ModelFolderError
from tandem.learn.errors import TrainingInputError
from tests.chat.small import folder_of

SFT = "[sft]\nsteps = 5\nbatch_tokens = 64\nlearning_rate = 1e-2\nvalidate_every = 2\n"
REWARD = "[reward]\nsteps = 3\npairs = 4\nlearning_rate = 1e-2\n"
PPO = '[rl]\nalgorithm = "ppo"\nsteps = 5\nprompts = 4\nresponse_tokens = 6\nema = 0.9\ntarget_kl = 1.0\n'
PPO += "mixture_coefficient = 0.5\nmixture_tokens = 64\nminibatches = 2\nmicro_rows = 1\nlearning_rate = 1e-2\n"
GRPO = '[rl]\nalgorithm = "grpo"\nreward = "capitals:score"\nsteps = 5\nprompts = 2\nresponse_tokens = 6\n'
GRPO += "learning_rate = 1e-2\n[rl.settings]\ngroup_size = 4\n"
DAPO = GRPO.replace("[rl.settings]", "dynamic_sampling = 3\noverlong_tokens = 4\n[rl.settings]")
DAPO = DAPO.replace("capitals:score", "capitals:early")  # right now and then, by chance alone
SPARSE = "[rl.sparse_rollouts]\nzeros = 0.6\n"
EVAL = "[eval]\nrows = 6\n"

REWARDS = """
import os

calls = []


def score(prompts, responses, answers):
    return [float(r == a) for r, a in zip(responses, answers)]


def early(prompts, responses, answers):
    calls.append(len(prompts))
    if len(calls) == int(os.environ.get("BREAK_AT_CALL", 0)):
        raise RuntimeError("broken off")
    return [float(r[:1] < "0") for r in responses]
"""

Recipe = Callable[[str], Path]


def run(file: Path, folder: Path, *overrides: str, stages: list[str] | None = None) -> RunFolder:
    (file.parent / "capitals.py").write_text(REWARDS)
    return train(recipes.load(file, overrides), folder, recipe_folder=file.parent, stages=stages)


def weights(folder: Path, model: str = "rl") -> dict[str, torch.Tensor]:
    return load_file(folder / "models" / model / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_a_whole_run_leaves_models_records_figures_and_a_page(recipe_file: Recipe, tmp_path: Path) -> None:
    done = run(recipe_file(SFT + REWARD + PPO + EVAL), tmp_path / "run")
    for name in ("start", "sft", "rl", "rl-average"):
        AutoModelForCausalLM.from_pretrained(done.model(name))
        AutoTokenizer.from_pretrained(done.model(name))
    assert not same(weights(done.path), weights(done.path, "rl-average"))
    phases = [record.phase for record in records.read(done.events) if record.phase]
    assert phases == ["train"] * 8 + ["generate", "score", "train"] * 5
    steps = [(record.step, record.total) for record in records.read(done.events) if record.step is not None]
    assert steps == [(step, 13.0) for step in range(1, 14)]
    assert {"reward", "kl_nats", "length_tokens", "generate_s", "kl_coefficient", "mixture"} <= done.series("rl").keys()
    figures = done.read_json("eval.json")["figures"]
    assert set(figures["rl"]) == {"perplexity", "score", "win rate over sft"}
    assert set(figures["reward"]) == {"pair accuracy"}
    assert figures["start"]["perplexity"]["low"] < figures["start"]["perplexity"]["mean"] < 400
    text = page.write(done).read_text()
    assert "Reinforcement learning" in text
    assert "Responses to held-out prompts" in text
    assert not list((done.path / "checkpoints").iterdir())


@pytest.mark.slow
def test_the_recipes_seed_decides_everything(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + GRPO)
    first, again, other = (
        run(file, tmp_path / name, f"seed={seed}").path for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


@pytest.mark.slow
def test_dpo_learns_from_pairs_without_drawing(recipe_file: Recipe, tmp_path: Path) -> None:
    done = run(
        recipe_file('[rl]\nalgorithm = "dpo"\nsteps = 12\nprompts = 8\nlearning_rate = 1e-2\n'), tmp_path / "run"
    )
    losses = [value for _, value in done.series("rl")["preference"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.5
    assert not done.samples()


@pytest.mark.parametrize("variant", ["dr_grpo", "dapo"])
def test_published_variants_are_an_option(variant: str, recipe_file: Recipe, tmp_path: Path) -> None:
    done = run(recipe_file(GRPO), tmp_path / "run", f"rl.variant={variant}", "rl.steps=1")
    assert not {"kl", "kl_nats"} & done.series("rl").keys()  # neither has a divergence in its loss


@pytest.mark.slow
def test_groups_whose_rewards_are_alike_are_replaced_as_long_as_the_recipe_allows(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(DAPO)
    done = run(file, tmp_path / "run").series("rl")
    assert [step for step, _ in done["loss"]] == [1, 2, 3, 4, 5]
    rounds, shares = ([value for _, value in done[name]] for name in ("rounds", "told_apart"))
    assert max(rounds) > 1.0
    assert max(shares) > 0.0
    assert all(share == 1.0 or number == 4.0 for share, number in zip(shares, rounds, strict=True))
    never = run(file, tmp_path / "never", "rl.reward=capitals:score").series("rl")
    assert {value for _, value in never["told_apart"]} == {0.0}
    assert {value for _, value in never["rounds"]} == {4.0}
    phases = [record.phase for record in records.read(tmp_path / "never" / "events.jsonl") if record.phase]
    assert phases == (["generate", "score"] * 4 + ["train"]) * 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [
        SFT + GRPO + SPARSE,
        SFT + DAPO + SPARSE,
        SFT + REWARD + PPO + SPARSE,
        SFT + GRPO + SPARSE + "[lora]\nrank = 2\n",
    ],
    ids=["grpo", "dapo", "ppo", "lora"],
)
def test_a_pruned_copy_draws_and_what_it_draws_is_weighed(stages: str, recipe_file: Recipe, tmp_path: Path) -> None:
    done = run(recipe_file(stages), tmp_path / "run")
    told = {name: [value for _, value in series] for name, series in done.series("rl").items()}
    assert len(told["rollout_ratio"]) == 5
    assert all(0.0 < ratio <= 2.0 and ratio != 1.0 for ratio in told["rollout_ratio"])
    assert all(0.0 <= share <= 1.0 for share in told["rollout_capped"])
    assert all(abs(nats) > 1e-4 for nats in told["rollout_kl_nats"])  # it is not the policy that drew
    assert max(told["first_ratio_off"]) <= 1e-5  # and it is not what drew that the clip compares with
    saved = weights(done.path)
    assert all((value == 0).float().mean() < 0.1 for name, value in saved.items() if "proj" in name)


@pytest.mark.slow
def test_a_copy_without_zeros_draws_what_the_policy_draws_and_every_ratio_is_1(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + GRPO)
    dense = run(file, tmp_path / "dense", "rl.steps=3")
    found = run(file, tmp_path / "found", "rl.steps=3", "rl.sparse_rollouts.zeros=0.0")
    assert found.samples() == dense.samples()
    series, told = found.series("rl"), dense.series("rl")
    for name in ("reward", "loss", "gradient_norm", "length_tokens"):
        expected = [value for _, value in told[name]]
        assert [value for _, value in series[name]] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert [value for _, value in series["rollout_ratio"]] == pytest.approx([1.0] * 3, abs=1e-5)
    assert [value for _, value in series["rollout_capped"]] == [0.0] * 3


@pytest.mark.slow
def test_imitation_ends_when_its_held_out_loss_does_not_fall_any_more(recipe_file: Recipe, tmp_path: Path) -> None:
    looks = ("sft.validate_every=1", "sft.patience=2")
    file = recipe_file(SFT + GRPO)
    done = run(file, tmp_path / "run", *looks, "sft.steps=50", "sft.learning_rate=1e-9")
    assert [step for step, _ in done.series("sft")["held_out_loss"]] == [1, 2, 3]  # one is the best, two no better
    assert done.has("rl")
    falling = run(
        file, tmp_path / "falling", *looks, "sft.steps=8", "sft.warmup_steps=0", "sft.learning_rate=0.1", stages=["sft"]
    )
    assert len(falling.series("sft")["held_out_loss"]) > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stages", "override", "models_read"),
    [
        (SFT + GRPO, "rl.steps=2", 2),
        (SFT + GRPO, "rl.settings.kl_coefficient=0.0", 1),
        (SFT + REWARD + PPO.replace("target_kl = 1.0\n", ""), "rl.settings.kl_coefficient=0.0", 1),
        (SFT + REWARD + PPO, "rl.settings.kl_coefficient=0.001", 2),
    ],
)
def test_without_a_coefficient_no_reference_is_loaded(
    stages: str,
    override: str,
    models_read: int,
    recipe_file: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = recipe_file(stages)
    run(file, tmp_path / "run", stages=["sft"])
    if "[reward]" in stages:
        run(file, tmp_path / "run", stages=["reward"])
    read, names = models.read, []

    def counted(path: Path, *settings: Any) -> models.Loaded:  # noqa: ANN401 - as `read` has them
        names.append(path.name)
        return read(path, *settings)

    monkeypatch.setattr(models, "read", counted)
    done = run(file, tmp_path / "run", override, stages=["rl"])
    assert names.count("sft") == models_read
    assert ("kl_nats" in done.series("rl")) == (models_read == 2)


@pytest.mark.slow
def test_stages_run_alone_in_their_order_and_one_that_is_done_is_not_done_again(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + REWARD + GRPO)
    for stage in ("reward", "rl"):
        with pytest.raises(StageError, match="run it first: --stage sft"):
            run(file, tmp_path / "run", stages=[stage])
    assert not (tmp_path / "run").exists()
    run(file, tmp_path / "run", stages=["sft"])
    before = (tmp_path / "run" / "models" / "sft" / "model.safetensors").stat().st_mtime_ns
    run(file, tmp_path / "run", stages=["sft", "rl"])
    assert (tmp_path / "run" / "models" / "sft" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(StageError, match=r"stage 'eval'; allowed: sft, reward, rl"):
        run(file, tmp_path / "run", stages=["eval"])


def test_a_loss_that_is_no_number_stops_in_words(recipe_file: Recipe, tmp_path: Path) -> None:
    model = folder_of(tmp_path / "broken")
    tensors = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        tensors.get_output_embeddings().weight[256, 0] = torch.nan
    tensors.save_pretrained(model)
    file = recipe_file(SFT)
    file.write_text(file.read_text().replace('init = "tiny-llama"', f'path = "{model}"'))
    with pytest.raises(DivergedError, match="the loss of stage sft is nan in step 0"):
        run(file, tmp_path / "run")


def test_what_makes_no_sense_is_refused_before_anything_is_written(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + GRPO)
    for overrides, told in (
        (["model.heads=3"], "model.width divided"),
        (["data.held_out=1.0"], "data.held_out from 0"),
        (["data.split=[0, 0, 0]"], "data.split with one number above 0"),
        (["rl.temperature=0.0"], "rl.temperature of at least 1e-6 and finite"),
        (["sft.steps=0"], "sft.steps from 1 to 1e9"),
        (["sft.learning_rate=nan"], "sft.learning_rate from 0 to 1e18"),
        (["rl.learning_rate=-1"], "rl.learning_rate from 0 to 1e18"),
        (["rl.missing_eos_penalty=1e300"], "rl.missing_eos_penalty from 0 to 1e18"),
        (["rl.mixture_coefficient=1e300"], "rl.mixture_coefficient from 0 to 1e18"),
        (["seed=99999999999999999999"], "seed from 0 to below 2"),
        (["rl.overlong_tokens=7"], "rl.overlong_tokens up to rl.response_tokens"),
        (["rl.dynamic_sampling=-1"], "rl.dynamic_sampling from 0 to 1e9"),
        (["rl.sparse_rollouts.zeros=1.0"], "rl.sparse_rollouts.zeros from 0 to below 1"),
        (["rl.sparse_rollouts.zeros=-0.1"], "rl.sparse_rollouts.zeros from 0 to below 1"),
        (["rl.sparse_rollouts.zeros=nan"], "rl.sparse_rollouts.zeros from 0 to below 1"),
        (["rl.sparse_rollouts.zeros=0.5", "rl.sparse_rollouts.cap=0.9"], "rl.sparse_rollouts.cap of at least 1"),
        (["rl.sparse_rollouts.cap=3.0"], "'rl.sparse_rollouts.zeros' is missing"),
        (["rl.sparse_rollouts=0.6"], "rl.sparse_rollouts = 0.6"),
        (["rl.top_p=0.9"], "rl.top_p"),  # it would have to be renormalised in training too
        (["rl.top_k=40"], "rl.top_k"),
        (["sft.stepz=3"], "did you mean 'sft.steps'"),
    ):
        with pytest.raises(ConfigError, match=told):
            recipes.load(file, overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "kind", "told"),
    [
        ("rl.algorithm=grop", UnknownPluginError, "did you mean 'grpo'"),
        ("rl.settings.group_sise=4", ConfigError, "group_size"),
        ("rl.algorithm=dpo rl.settings={} rl.dynamic_sampling=1", StageError, "rl.dynamic_sampling with 'dpo'"),
        ("rl.algorithm=dpo rl.settings={} rl.overlong_tokens=1", StageError, "rl.overlong_tokens with 'dpo'"),
        ("rl.algorithm=dpo rl.settings={} rl.sparse_rollouts.zeros=0.5", StageError, "rl.sparse_rollouts with 'dpo'"),
        ("rl.algorithm=ppo rl.settings={} rl.dynamic_sampling=1", StageError, "compares responses to one prompt"),
        ("rl.variant=dr_grop", StageError, "dr_grpo and dapo"),
        ("rl.variant=dapo rl.target_kl=1.0", StageError, "a kl_coefficient above 0"),
        ("rl.settings.group_size=1", TrainingInputError, "group_size from 2 to 1e6"),
        ("rl.reward=capitals:none", UnknownPluginError, "has no 'none'"),
        ("rl.reward=none", StageError, r"reward 'none' for \[rl\]"),
        ("rl.reward=model", StageError, r"reward 'model' for \[rl\].*add \[reward\]"),
        ("rl.response_tokens=32", ConfigError, "rl.response_tokens = 32 and .* of 32 tokens; allowed: 1 to 31"),
        ("eval.response_tokens=400", ConfigError, "eval.response_tokens = 400 and .* of 32 tokens"),
        ("model.template={{bad", ModelFolderError, "model.template fails .* TemplateSyntaxError"),
        ("model.template={{messages[0].content.nope.deeper}}", ModelFolderError, "model.template .* UndefinedError"),
        ("model.template={{raise_exception(1)}}", ModelFolderError, "model.template .* TemplateError: 1"),
        ("model={path='nowhere'}", ModelFolderError, "there is no such folder"),
        ("eval.reward=gsm8", UnknownPluginError, "did you mean 'gsm8k'"),
        ("rl.algorithm=dpo rl.settings={} rl.reward=model", StageError, r"reward 'model' for \[eval\]"),
    ],
)
def test_what_rl_and_the_evaluation_cannot_be_is_said_before_any_stage(
    override: str, kind: type[Exception], told: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told):
        run(recipe_file(SFT + GRPO + EVAL), tmp_path / "run", *override.split())
    assert not (tmp_path / "run").exists()


def test_a_response_as_long_as_a_models_own_context_is_refused_before_any_stage(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + GRPO)
    model = folder_of(tmp_path / "small", max_position_embeddings=48)
    file.write_text(file.read_text().replace('init = "tiny-llama"', f'path = "{model}"'))
    with pytest.raises(ConfigError, match="with a context of 48 tokens; allowed: 1 to 47"):
        run(file, tmp_path / "run", "rl.response_tokens=48")
    assert not (tmp_path / "run").exists()
    run(file, tmp_path / "run", stages=["sft"])
    with pytest.raises(ConfigError, match="with a context of 48 tokens; allowed: 1 to 47"):
        run(file, tmp_path / "run", "rl.response_tokens=48")


def test_a_model_without_layers_to_prune_is_refused_sparse_rollouts_before_any_stage(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + GRPO + SPARSE)
    model = folder_of(tmp_path / "gpt2", "gpt2", n_positions=32)
    file.write_text(file.read_text().replace('init = "tiny-llama"', f'path = "{model}"'))
    with pytest.raises(GenerationError, match="a GPT2LMHeadModel to prune"):
        run(file, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run(file, tmp_path / "run", stages=["sft"]).has("sft")
    with pytest.raises(GenerationError, match="a GPT2LMHeadModel to prune"):
        run(file, tmp_path / "run", stages=["rl"])
    check = recipes.load(file, ["rl.sparse_rollouts.zeros=0.0", "rl.steps=1"])
    assert train(check, tmp_path / "run", recipe_folder=file.parent).has("rl")  # nothing to prune


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.split=[1,0,0]", "no prompt to respond to in any source"),
        ("data.split=[0,0,1]", "no response to imitate in any source"),
        ("data.split=[1,0,0] rl.algorithm=dpo rl.settings={}", "no preference pair in any source"),
        ("rl.response_tokens=31", r"rows need more than the model's context.*lower rl\.response_tokens"),
        ("eval.response_tokens=31", r"rows need more than the model's context.*lower eval\.response_tokens"),
        ("rl.response_tokens=64 rl.algorithm=dpo rl.settings={}", r"need more .*lower rl\.response_tokens"),
    ],
)
def test_rows_that_a_later_stage_lacks_are_missed_before_the_first(
    override: str, told: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(RowsError, match=told):
        run(recipe_file(SFT + GRPO + EVAL), tmp_path / "run", *override.split())
    assert not (tmp_path / "run" / "events.jsonl").exists()
    assert not RunFolder(tmp_path / "run").has("sft")


def test_a_stage_that_lacks_rows_because_their_prompts_serve_another_says_so(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + GRPO)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "ab", "response": "AB"}\n{"prompt": "ab", "answer": "AB"}\n')
    with pytest.raises(RowsError, match="no prompt to respond to in any source: 1 rows are left out, as their prompts"):
        run(file, tmp_path / "run", "data.held_out=0", "data.split=[1,0,1e-9]")


def test_pairs_that_are_too_long_are_told_before_the_first_stage(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + REWARD)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**row, "rejected": "long" * 9}) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(RowsError, match=r"need more than the model's context.*shorten them, or take"):
        run(file, tmp_path / "run", "data.held_out=0")
    assert not (tmp_path / "run" / "events.jsonl").exists()


@pytest.mark.slow
def test_a_length_that_nothing_is_drawn_with_is_not_looked_at(recipe_file: Recipe, tmp_path: Path) -> None:
    dpo = '[rl]\nalgorithm = "dpo"\nsteps = 1\nprompts = 2\nresponse_tokens = 64\n'
    file = recipe_file(SFT + dpo + EVAL + 'reward = "none"\n')
    figures = run(file, tmp_path / "run").read_json("eval.json")["figures"]
    assert set(figures["rl"]) == {"perplexity"}


def test_an_evaluation_without_rl_scores_with_a_length_of_its_own(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + EVAL + 'reward = "capitals:score"\n')
    with pytest.raises(ConfigError, match=r"eval\.response_tokens where eval\.reward is set"):
        recipes.load(file)
    figures = run(file, tmp_path / "run", "eval.response_tokens=6", "sft.steps=1").read_json("eval.json")["figures"]
    assert set(figures["sft"]) == {"perplexity", "score"}


def test_a_reward_model_is_there_or_trained_before_it_is_asked_for(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + REWARD + PPO)
    with pytest.raises(StageError, match=r"run it first: --stage reward"):
        run(file, tmp_path / "run", stages=["sft", "rl"])
    assert not (tmp_path / "run").exists()
    assert run(file, tmp_path / "run", "rl.steps=1", stages=["reward", "sft", "rl"]).has("rl")


def test_a_reward_that_nothing_asks_for_any_more_may_be_gone(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(GRPO)
    run(file, tmp_path / "run", "rl.steps=1")
    (tmp_path / "capitals.py").unlink()
    sys.modules.pop("capitals")
    before = (tmp_path / "run" / "events.jsonl").read_bytes()
    assert train(recipes.load(file, ["rl.steps=1"]), tmp_path / "run", recipe_folder=tmp_path).has("rl")
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == before


@pytest.mark.slow
def test_an_evaluation_is_repeatable_and_takes_as_many_rows_as_asked(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + GRPO + EVAL)
    folder = run(file, tmp_path / "run").path
    first = json.loads((folder / "eval.json").read_text())
    assert first["figures"]["rl"]["score"]["rows"] == 6
    again = evaluating.again(folder, file.parent, rows=None, temperature=None).read_json("eval.json")
    assert again == first
    fewer = evaluating.again(folder, file.parent, rows=3, temperature=1.0).read_json("eval.json")
    assert fewer["figures"]["rl"]["score"]["rows"] == 3
    with pytest.raises(StageError, match="is no run"):
        evaluating.again(tmp_path, file.parent, rows=None, temperature=None)
