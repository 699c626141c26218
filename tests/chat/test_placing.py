"""Where a run computes and in what type: words, refusals, runs in bfloat16; on a GPU what a processor says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open

from tandem.chat import evaluating, forward, heads, models, placing, talk
from tandem.chat import recipe as recipes
from tandem.chat.data.batches import padded
from tandem.chat.drawing import batch_of
from tandem.chat.engine.generate import Sampling, generate
from tandem.chat.errors import ResumeError
from tandem.chat.placing import DeviceError, Place, placed
from tandem.chat.talk import model_of as model_of_run
from tandem.chat.train import train
from tandem.core import config
from tandem.core.errors import ConfigError
from tests.chat.small import model_of, turns
from tests.chat.test_train import GRPO, PPO, REWARD, REWARDS, SFT, SPARSE, run, same, weights
from tests.conftest import requires

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Recipe = Callable[[str], Path]

DPO = '[rl]\nalgorithm = "dpo"\nsteps = 3\nprompts = 4\nlearning_rate = 1e-3\n'
EVAL = "[eval]\nrows = 6\n"
EARLY = GRPO.replace("capitals:score", "capitals:early")  # right now and then, by chance alone
LORA = "[lora]\nrank = 2\n"
DEVICES = ["cpu", pytest.param("cuda", marks=requires("gpu"))]


def test_a_processor_computes_in_float32_unless_it_is_told_otherwise() -> None:
    assert placed("cpu").dtype == torch.float32
    assert placed("cpu", "bfloat16").dtype == torch.bfloat16
    assert placed("auto", strategy="fsdp").device == torch.device("cpu")


@pytest.mark.parametrize("given", [("gpu",), ("cuda:1000",), ("cuda", "auto", "fsdp"), ("cpu", "bfloat16", "zero")])
def test_what_is_not_there_is_refused_in_words(given: tuple[str, ...]) -> None:
    with pytest.raises(DeviceError, match="allowed"):
        placed(*given)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(recipe_file: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cuda:99"):
        run(recipe_file(SFT), tmp_path / "run", "device=cuda:99")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="cuda:N"):
        recipes.load(recipe_file(SFT), ["device=gpu"])


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "stages",
    [
        SFT + REWARD + PPO + EVAL,
        SFT + EARLY + SPARSE + EVAL,
        SFT + EARLY + EVAL + LORA,
        SFT + DPO + EVAL + 'reward = "none"\n',
    ],
    ids=["ppo", "sparse", "lora", "dpo"],
)
def test_a_whole_run_in_bfloat16_is_saved_so_and_can_be_talked_with(
    stages: str, device: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    done = run(recipe_file(stages), tmp_path / "run", "dtype=bfloat16", f"device={device}")
    for name in ("start", "sft", "rl"):
        assert {value.dtype for value in weights(done.path, name).values()} == {torch.bfloat16}
        assert models.read(done.model(name), placed("cpu")).model.dtype == torch.float32
    assert not same(weights(done.path, "sft"), weights(done.path, "rl"))
    figures = evaluating.again(done.path, tmp_path, rows=4, temperature=1.0).read_json("eval.json")["figures"]
    assert figures["rl"]["perplexity"]["mean"] > 1.0
    asked = {"model": "", "system": "", "temperature": 0.0, "tokens": 4, "seed": 0}
    talking = talk.begun(done.path, **asked)
    assert talking.loaded.model.device.type == device
    assert talking.say("abc") == talk.begun(done.path, **asked).say("abc")


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stages", [REWARD + PPO, EARLY], ids=["ppo", "grpo"])
def test_a_run_that_goes_on_ends_with_the_same_bits(
    stages: str, dtype: str, device: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    file, overrides = recipe_file(stages), (f"dtype={dtype}", f"device={device}")
    whole = run(file, tmp_path / "whole", *overrides)

    def stop(stage: str, done: int, of: int) -> None:
        del of
        if (stage, done) == ("rl", 3):
            raise InterruptedError

    asked = recipes.load(file, overrides)
    with pytest.raises(InterruptedError):
        train(asked, tmp_path / "torn", recipe_folder=file.parent, progress=stop)
    torn = run(file, tmp_path / "torn", *overrides)
    assert same(weights(torn.path), weights(whole.path))


@pytest.mark.slow
def test_the_type_of_a_run_that_has_begun_stays(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT)
    run(file, tmp_path / "run", "dtype=bfloat16", "device=cpu")
    with pytest.raises(ResumeError, match="dtype: bfloat16 before, float32 now"):
        run(file, tmp_path / "run", "dtype=float32", "device=cpu")


@pytest.mark.slow
def test_it_says_where_it_computes_and_when_the_type_is_not_that_in_which_it_began(
    recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    file, folder = recipe_file(SFT + REWARD), tmp_path / "run"
    asked = recipes.load(file, ["device=cpu", "reward.steps=1"])
    train(asked, folder, recipe_folder=file.parent, stages=["sft"], say=said.append)
    assert "computing on cpu in float32" in said
    monkeypatch.setattr(placing, "placed", lambda *given: Place(torch.device("cpu"), torch.bfloat16))  # as on a GPU
    train(asked, folder, recipe_folder=file.parent, say=said.append)
    assert "computing on cpu in bfloat16; it began in float32" in said
    assert models.dtype_of(folder / "models" / "reward") == torch.bfloat16


@pytest.mark.parametrize(("device", "words"), [("", "--device ''; allowed"), ("cuda:99", "--device 'cuda:99', and")])
def test_a_device_that_a_command_is_asked_for_in_vain_is_named_as_its_option(
    device: str, words: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    done = run(recipe_file(SFT), tmp_path / "run", "sft.steps=1")
    with pytest.raises(DeviceError, match=words):
        evaluating.again(done.path, tmp_path, rows=4, temperature=0.0, device=device)
    with pytest.raises(DeviceError, match=words):
        model_of_run(done.path, "", device)


@pytest.mark.slow
def test_a_run_of_several_ranks_is_measured_by_one_process_wherever_that_computes(
    recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that asks for its strategy is refused a GPU."""
    done = run(recipe_file(SFT), tmp_path / "run", "sft.steps=1")
    recipe = replace(done.recipe(), strategy="fsdp")
    (done.path / "config.toml").write_text(config.dump(recipe))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match="torch sees no GPUs"):
        evaluating.again(done.path, tmp_path, rows=4, temperature=0.0, device="cuda")
    figures = evaluating.again(done.path, tmp_path, rows=4, temperature=0.0).read_json("eval.json")["figures"]
    assert set(figures) == {"start", "sft"}
    assert done.recipe().strategy == "fsdp"


@pytest.mark.parametrize("seed", [0, None])
def test_scores_are_float32_whatever_the_body_is(seed: int | None, tmp_path: Path) -> None:
    scorer = heads.from_language_model(model_of("llama").bfloat16(), seed=seed)
    batch = padded(turns([(3, 4), (2, 6)]), 257)
    assert scorer.dtype == torch.bfloat16
    assert heads.scores(scorer, batch).dtype == heads.values(scorer, batch)[0].dtype == torch.float32
    scorer.save_pretrained(tmp_path / "reward")
    with safe_open(tmp_path / "reward" / "model.safetensors", "pt") as file:
        assert file.get_tensor("score.weight").dtype == torch.float32
    torch.testing.assert_close(
        heads.scores(heads.read(tmp_path / "reward", placed("cpu", "bfloat16")), batch),
        heads.scores(scorer, batch),
        atol=0.05,
        rtol=0.02,
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_log_probabilities_of_generation_in_bfloat16_are_near_those_of_training(family: str) -> None:
    _agree(model_of(family).bfloat16(), 0.25)


@requires("gpu")
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "opt"])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 0.25)])
def test_log_probabilities_of_generation_on_a_gpu_are_those_of_training(
    family: str, dtype: torch.dtype, within: float
) -> None:
    _agree(model_of(family).to("cuda", dtype), within)


def _agree(model: torch.nn.Module, within: float) -> None:
    sampling = Sampling(max_new_tokens=12, eos_id=256)
    rng = torch.Generator().manual_seed(0)
    rollout = generate(model, [[1, 2, 3], [4, 5, 6, 7]], sampling, group=2, generator=rng, pad_id=257)
    with torch.no_grad():
        logps_BT = forward.logprobs(model, batch_of(rollout, 2))
    assert logps_BT.dtype == torch.float32
    torch.testing.assert_close(logps_BT, rollout.logps_BT, atol=within, rtol=0)


@requires("gpu")
@pytest.mark.slow
@pytest.mark.parametrize("stages", [SFT + REWARD + PPO + EVAL, EARLY, DPO], ids=["ppo", "grpo", "dpo"])
def test_losses_on_a_gpu_in_float32_are_those_of_a_processor(stages: str, recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(stages)
    runs = [run(file, tmp_path / name, "dtype=float32", f"device={name}") for name in ("cpu", "cuda")]
    for stage in [name for name in ("sft", "reward", "rl") if f"[{name}]" in stages]:
        host, gpu = (one.series(stage)["loss"] for one in runs)
        assert [value for _, value in gpu[:3]] == pytest.approx([value for _, value in host[:3]], rel=1e-2, abs=1e-3)
    (tmp_path / "capitals.py").write_text(REWARDS)
