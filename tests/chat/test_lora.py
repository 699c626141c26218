"""Adapters: what learns, what stays, what is saved; merged is unmerged; the reference is the policy without them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tandem.chat import forward, lora, models
from tandem.chat import recipe as recipes
from tandem.chat.data.batches import padded
from tandem.chat.engine.generate import Sampling, generate
from tandem.chat.errors import ResumeError
from tandem.chat.recipe import Lora
from tandem.chat.train import train
from tandem.kernels.model_folder import ModelFolderError
from tandem.learn.optimiser import Optimiser
from tests.chat.small import FAMILIES, model_of, template, turns
from tests.chat.test_train import GRPO, PPO, REWARD, SFT, run, same, weights

Recipe = Callable[[str], Path]

# PEFT itself asks transformers for what the latter is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

DPO = '[rl]\nalgorithm = "dpo"\nsteps = 4\nprompts = 8\nresponse_tokens = 6\nlearning_rate = 1e-2\n'
SPREAD = GRPO.replace("capitals:score", "spread:score")  # a reward that tells any two responses apart
LORA = "[lora]\nrank = 2\nalpha = 8\n"


def adapted(family: str = "llama", **settings: Any) -> Any:  # noqa: ANN401 - a model of transformers
    """A model whose adapters are far from nothing."""
    model = model_of(family)
    lora.put_in(model, Lora(rank=2, **settings), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


@pytest.fixture(autouse=True)
def spread(tmp_path: Path) -> None:
    """The reward that `SPREAD` names."""
    (tmp_path / "spread.py").write_text(
        "def score(p, responses, a):\n    return [sum(map(ord, r)) / 1e3 for r in responses]\n"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_says_what_unmerged_says_and_off_what_there_was_before(family: str, tmp_path: Path) -> None:
    model, batch = adapted(family), padded(turns([(3, 5), (4, 2)]), 257)
    plain = forward.logprobs(model_of(family), batch)
    unmerged = forward.logprobs(model, batch)
    assert not torch.allclose(unmerged, plain, atol=0.1)
    with lora.merged(model):
        assert torch.allclose(forward.logprobs(model, batch), unmerged, atol=1e-5)
        assert not any("lora" in name for name, _ in model.named_parameters())
    with lora.off(model):
        assert torch.equal(forward.logprobs(model, batch), plain)
    assert torch.equal(forward.logprobs(model, batch), unmerged)
    models.save(model, template(), tmp_path / "base" / "new", base="there")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "base" / "new")
    assert torch.allclose(forward.logprobs(saved.eval(), batch), unmerged, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_draws_from_the_policy_with_its_adapters(family: str) -> None:
    model, sampling = adapted(family), Sampling(max_new_tokens=6, eos_id=256)
    rollout = generate(model, [[1, 2, 3], [4, 5]], sampling, generator=torch.Generator().manual_seed(0), pad_id=257)
    slots_T = torch.arange(rollout.tokens_BT.shape[1])
    inside_BT = (slots_T >= rollout.prompt_lengths_B[:, None]) & (slots_T < rollout.lengths_B[:, None])
    logits_BTV = model(input_ids=rollout.tokens_BT).logits
    logps_BT = logits_BTV[:, :-1].log_softmax(-1).gather(2, rollout.tokens_BT[:, 1:, None])[..., 0]
    assert torch.allclose(logps_BT[inside_BT[:, 1:]], rollout.logps_BT[inside_BT], atol=1e-4)


def test_only_adapters_learn_and_the_optimiser_and_the_checkpoint_hold_nothing_else() -> None:
    model = adapted(targets=("q_proj", "v_proj"))
    base = {name: p.detach().clone() for name, p in model.named_parameters() if "lora" not in name}
    optimiser = Optimiser(model.parameters(), learning_rate=1e-2)
    for step in range(3):
        (-forward.logprobs(model, padded(turns([(3, 5)]), 257)).sum()).backward()
        optimiser.step(step)
    learnt = lora.Learnt(model).state_dict()
    assert len(learnt) == 2 * 2 * 2  # two factors, two layers of two blocks
    state: Any = optimiser.state_dict()
    assert len(state["state"]) == len(learnt)
    assert {tuple(one["exp_avg"].shape) for one in state["state"].values()} == {tuple(v.shape) for v in learnt.values()}
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in base.items())
    other = model_of("llama")
    lora.put_in(other, Lora(rank=2), seed=0)
    with pytest.raises(RuntimeError, match="adapters of 8 matrices for a model of 28"):
        lora.Learnt(other).load_state_dict(learnt)


def test_targets_that_are_not_there_are_named() -> None:
    with pytest.raises(ModelFolderError, match=r"lora.targets \['query'\] in a LlamaForCausalLM"):
        lora.put_in(model_of("llama"), Lora(targets=("query",)), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("stages", [SFT + SPREAD, SFT + REWARD + PPO, SFT + DPO], ids=["grpo", "ppo", "dpo"])
def test_a_run_with_adapters_leaves_models_that_anybody_loads(stages: str, recipe_file: Recipe, tmp_path: Path) -> None:
    quickly = ("sft.warmup_steps=0", "rl.warmup_steps=0", "lora.alpha=64")
    done = run(recipe_file(LORA + stages), tmp_path / "run", *quickly)
    for name, base in (("sft", "start"), ("rl", "sft")):
        plain = AutoModelForCausalLM.from_pretrained(done.model(name)).eval()
        before = AutoModelForCausalLM.from_pretrained(done.model(base)).eval()
        batch = padded(turns([(3, 5), (4, 2)]), 257)
        assert not torch.allclose(forward.logprobs(plain, batch), forward.logprobs(before, batch), atol=1e-3)
        beside = peft.PeftModel.from_pretrained(before, str(done.model(name) / "adapter"))
        assert torch.allclose(
            forward.logprobs(beside.get_base_model(), batch), forward.logprobs(plain, batch), atol=1e-5
        )
        config = peft.PeftConfig.from_pretrained(str(done.model(name) / "adapter"))
        assert config.base_model_name_or_path == str(done.model(base))
        moved = {
            key
            for key, value in weights(done.path, name).items()
            if not torch.equal(value, weights(done.path, base)[key])
        }
        assert all("proj" in key for key in moved)
        assert len(moved) == 7
    away = [value for _, value in done.series("rl")["kl_nats"]]
    assert away[0] == 0.0
    assert away[-1] != 0.0


@pytest.mark.slow
def test_the_reference_is_no_second_copy(recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, loaded = models.read, []

    def counted(path: Path, *settings: Any) -> models.Loaded:  # noqa: ANN401 - as `read` has them
        loaded.append(path.name)
        return read(path, *settings)

    file = recipe_file(SFT + GRPO)
    run(file, tmp_path / "a", stages=["sft"])
    run(file, tmp_path / "b", "lora.rank=2", stages=["sft"])
    monkeypatch.setattr(models, "read", counted)
    run(file, tmp_path / "a", stages=["rl"])
    assert loaded.count("sft") == 2
    loaded.clear()
    run(file, tmp_path / "b", "lora.rank=2", stages=["rl"])
    assert loaded.count("sft") == 1


@pytest.mark.slow
@pytest.mark.parametrize("stages", [SFT + SPREAD, SFT + REWARD + PPO], ids=["grpo", "ppo"])
def test_a_run_with_adapters_goes_on_with_the_same_bits(
    stages: str, recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = recipe_file(LORA + stages)
    whole = run(file, tmp_path / "whole").path
    load, calls = torch.optim.AdamW.step, []

    def killed(self: torch.optim.AdamW, *given: Any, **more: Any) -> Any:  # noqa: ANN401 - as AdamW has them
        calls.append(1)
        if len(calls) in (4, 11):
            message = "the power is gone"
            raise OSError(message)
        return load(self, *given, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", killed)
    for _ in range(2):
        with pytest.raises(OSError, match="the power is gone"):
            run(file, tmp_path / "stopped")
    run(file, tmp_path / "stopped")
    assert same(weights(whole), weights(tmp_path / "stopped"))
    one = load_file(whole / "models" / "rl" / "adapter" / "adapter_model.safetensors")
    assert same(one, load_file(tmp_path / "stopped" / "models" / "rl" / "adapter" / "adapter_model.safetensors"))
    with pytest.raises(ResumeError, match=r"lora.rank: 2 before, 3 now"):
        train(recipes.load(file, ["lora.rank=3"]), whole, recipe_folder=tmp_path)
