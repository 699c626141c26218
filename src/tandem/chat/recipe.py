"""What `tandem chat train` reads: one TOML file, one frozen dataclass. A stage without its table is left out.

    recipe = load(Path("recipe.toml"), ["rl.steps=200"])

Everything that decides a run's result is in here, so that a run can be told apart from another by its recipe alone.
Relative paths are meant from the recipe's folder.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from tandem.core import config
from tandem.core.errors import ConfigError
from tandem.learn.bounds import MOST, MOST_AT_ONCE, MOST_COUNTED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

STAGES = ("sft", "reward", "rl", "eval")

Phase = Literal["sft", "reward", "rl"]
Dtype = Literal["auto", "float32", "bfloat16"]
DEVICES = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Where the model comes from.

    Attributes:
        path: A Hugging Face folder of a causal language model with its tokenizer; or:
        init: `tiny-llama`, a Llama with drawn weights of the sizes below, and a tokenizer trained on the data.
        width: Of the residual stream.
        layers: How many blocks.
        heads: Attention heads; they divide `width`.
        context_tokens: How many tokens the model can look at.
        tokenizer: `bytes`, or `bpe` (byte-level byte-pair encoding).
        vocabulary: Tokens of `bpe`.
        template: Jinja of a chat's template, for a tokenizer without one.
    """

    path: str | None = None
    init: Literal["tiny-llama"] | None = None
    width: int = 128
    layers: int = 4
    heads: int = 4
    context_tokens: int = 256
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    vocabulary: int = 512
    template: str | None = None


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (PEFT's), which learn in the place of all weights in sft and rl.

    Attributes:
        rank: Of the two factors (Hu et al., LoRA, 2021, section 7.2: 8 is about as good as 64).
        alpha: What their product is scaled by is alpha / rank (PEFT: 8).
        targets: Names of linear layers, such as `q_proj`; empty for all but the head.
    """

    rank: int = 8
    alpha: int = 8
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from, and what their columns are called.

    Attributes:
        path: JSONL, Parquet, a space of Tandem with JSONL files, or a folder of Hugging Face datasets.
        weight: How often it has its turn beside the other sources of a phase.
        phases: What it may serve; None for all that it has the columns for.
        prompt: Column of the prompt.
        response: Of the response to imitate.
        chosen: Of the preferred response.
        rejected: Of the other.
        answer: Of the answer that a reward function checks.
    """

    path: str
    weight: float = 1.0
    phases: tuple[Phase, ...] | None = None
    prompt: str = "prompt"
    response: str = "response"
    chosen: str = "chosen"
    rejected: str = "rejected"
    answer: str = "answer"


@dataclass(frozen=True, kw_only=True)
class Data:
    """All rows.

    Attributes:
        sources: Where they come from.
        held_out: Share of prompts that nothing is trained on.
        split: Shares of prompts for sft, reward and rl, among those their rows can serve (DeepSpeed-Chat: 2, 4, 4).
        bad_rows: Whether a bad row is passed over and counted, or stops the run.
    """

    sources: tuple[Source, ...]
    held_out: float = 0.1
    split: tuple[float, float, float] = (2.0, 4.0, 4.0)
    bad_rows: Literal["skip", "stop"] = "skip"


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning.

    Attributes:
        steps: At most.
        learning_rate: Of AdamW, after the warm-up (InstructGPT, appendix C.1: 9.65e-6 for 1.3B; tiny models take more).
        batch_tokens: Padded or packed tokens of a step.
        packing: Whether rows follow each other without padding, each seeing itself alone.
        warmup_steps: Of linear warm-up.
        decay: Whether the rate comes down to a tenth by the last step, along a cosine (InstructGPT, C.1).
        validate_every: Steps between looks at the held-out loss; 0 for none.
        patience: Looks without a better loss by 0.5 % after which the stage ends; 0 for never.
    """

    steps: int
    learning_rate: float = 1e-5
    batch_tokens: int = 4096
    packing: bool = True
    warmup_steps: int = 10
    decay: bool = True
    validate_every: int = 0
    patience: int = 0


@dataclass(frozen=True, kw_only=True)
class Reward:
    """The reward model.

    Attributes:
        steps: How many.
        pairs: Pairs of a step.
        learning_rate: Of AdamW (InstructGPT, appendix C.2: 9e-6).
        warmup_steps: Of linear warm-up.
    """

    steps: int
    pairs: int = 32
    learning_rate: float = 9e-6
    warmup_steps: int = 10


@dataclass(frozen=True, kw_only=True)
class SparseRollouts:
    """Responses that a pruned copy of the policy draws, made anew for each step, and weighed (`chat/off_policy.py`).

    Attributes:
        zeros: Share of the weights of each linear layer that the copy leaves out, those nearest to 0 (Han et al. 2015);
            0: nothing is left out.
        cap: The most that a ratio of policy to copy counts for (truncated importance sampling, Yao et al. 2025;
            ms-swift: 2).
    """

    zeros: float
    cap: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Rl:
    """Reinforcement learning, or learning from pairs alone (`algorithm = "dpo"`).

    Attributes:
        algorithm: A file of `chat/algorithms`.
        variant: A published variant of it (`dr_grpo`, `dapo`).
        settings: The algorithm's own, over its defaults.
        reward: `model` for the trained reward model, a file of `chat/rewards` (`gsm8k`), or `module:function`.
        steps: How many batches are drawn.
        prompts: Prompts of a step; pairs of a step for `dpo`.
        response_tokens: How long a response may get, EOS included.
        temperature: At which responses are drawn and log-probabilities taken, the reference's too.
        epochs: How often a batch is gone through (InstructGPT, DeepSpeed-Chat: 1).
        minibatches: Updates of an epoch.
        micro_rows: Responses that go through a model at once; 0 for all of a minibatch.
        learning_rate: Of the policy (InstructGPT, appendix C.4: 9e-6).
        critic_learning_rate: Of the critic (DeepSpeed-Chat: 5e-6).
        warmup_steps: Of linear warm-up.
        missing_eos_penalty: Taken off the score of a response that was cut short.
        overlong_tokens: In how many last tokens before `response_tokens` a length costs more and more, up to 1 (DAPO,
            Yu et al. 2025, equation 13; there 4,096 of 20,480); 0: lengths cost nothing.
        dynamic_sampling: Further batches of prompts that a step may draw to replace groups whose rewards are all alike,
            which teach nothing (DAPO, section 3.2, without a bound); 0: such groups stay.
        ema: Decay of the averaged policy (DeepSpeed-Chat: 0.992); 0 for none.
        mixture_coefficient: Weight of the supervised loss in the policy's (InstructGPT, C.4: 27.8); 0 for none.
        mixture_tokens: Tokens of the supervised batch of a step.
        target_kl: Nats a response that an adaptive KL coefficient steers to (Ziegler et al.: 6); None: it is fixed.
        kl_horizon: In how many responses it gets there (Ziegler et al.: 10,000).
        sparse_rollouts: Who draws responses in the place of the policy; None: the policy itself.
    """

    steps: int
    algorithm: str = "grpo"
    variant: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    reward: str = "model"
    prompts: int = 16
    response_tokens: int = 64
    temperature: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    micro_rows: int = 0
    learning_rate: float = 9e-6
    critic_learning_rate: float = 5e-6
    warmup_steps: int = 10
    missing_eos_penalty: float = 1.0
    overlong_tokens: int = 0
    dynamic_sampling: int = 0
    ema: float = 0.0
    mixture_coefficient: float = 0.0
    mixture_tokens: int = 2048
    target_kl: float | None = None
    kl_horizon: int = 10_000
    sparse_rollouts: SparseRollouts | None = None


@dataclass(frozen=True, kw_only=True)
class Eval:
    """What is measured on held-out prompts, before and after.

    Attributes:
        rows: Held-out rows at most.
        temperature: Of the responses; 0 takes the likeliest token.
        reward: A reward as in `rl`, or `none`; None takes that of `rl`.
        response_tokens: How long a response may get; None takes that of `rl`.
    """

    rows: int = 256
    temperature: float = 0.0
    reward: str | None = None
    response_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run.

    Attributes:
        model: Where the model comes from.
        data: All rows.
        sft: Stages; one that is None is left out.
        reward: The reward model.
        rl: Reinforcement learning.
        eval: The evaluation.
        lora: Adapters that learn in the place of all weights; None for all weights.
        seed: Of weights, orders and draws.
        save_every_steps: Steps between checkpoints.
        strategy: How ranks share the models, a file of `learn/strategies`; `single` is one process.
        device: Where models compute: `cpu`, `cuda`, `cuda:1`; `auto` is a GPU where torch sees one.
        dtype: In what: `float32`, `bfloat16` (an optimiser keeps float32); `auto` is bfloat16 on a GPU, else float32.
    """

    model: Model
    data: Data
    sft: Sft | None = None
    reward: Reward | None = None
    rl: Rl | None = None
    eval: Eval | None = None
    lora: Lora | None = None
    seed: int = 0
    save_every_steps: int = 20
    strategy: str = "single"
    device: str = "auto"
    dtype: Dtype = "auto"


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; its paths become absolute.

    Raises:
        ConfigError: It cannot be read, or something in it does not fit.
    """
    recipe = config.load(Recipe, path, overrides)
    _check(recipe, path)
    here = path.resolve().parent
    sources = tuple(replace(one, path=str(here / one.path)) for one in recipe.data.sources)
    model = recipe.model if recipe.model.path is None else replace(recipe.model, path=str(here / recipe.model.path))
    return replace(recipe, model=model, data=replace(recipe.data, sources=sources))


def evaluation_reward(recipe: Recipe) -> str:
    """Return the reward of the evaluation, `none` where no stage has any."""
    return (recipe.eval and recipe.eval.reward) or (recipe.rl.reward if recipe.rl else "none")


def differences(before: Recipe, now: Recipe) -> dict[str, tuple[object, object]]:
    """Return what differs, by dotted key, as (before, now)."""
    old, new = _flat(asdict(before), ""), _flat(asdict(now), "")
    return {
        key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    }


RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "from 1 to 1e6": (
        lambda x: 1 <= x <= MOST_AT_ONCE,
        "model.width model.layers model.heads model.vocabulary lora.rank lora.alpha reward.pairs rl.prompts rl.epochs "
        "rl.minibatches",
    ),
    "from 1 to 1e9": (
        lambda x: 1 <= x <= MOST_COUNTED,
        "save_every_steps model.context_tokens sft.steps sft.batch_tokens reward.steps rl.steps rl.response_tokens "
        "rl.mixture_tokens rl.kl_horizon eval.rows eval.response_tokens",
    ),
    "from 0 to 1e9": (
        lambda x: 0 <= x <= MOST_COUNTED,
        "sft.warmup_steps sft.validate_every sft.patience reward.warmup_steps rl.warmup_steps rl.micro_rows "
        "rl.overlong_tokens rl.dynamic_sampling",
    ),
    "from 0 to 1e18": (
        lambda x: 0.0 <= x <= MOST,
        "sft.learning_rate reward.learning_rate rl.learning_rate rl.critic_learning_rate rl.missing_eos_penalty "
        "rl.mixture_coefficient eval.temperature data.split",
    ),
    "of at least 1": (lambda x: x >= 1.0, "rl.sparse_rollouts.cap"),
    "above 0 and finite": (lambda x: 0.0 < x < math.inf, "rl.target_kl data.sources.weight"),
    "of at least 1e-6 and finite": (lambda x: 1e-6 <= x < math.inf, "rl.temperature"),  # logits over it are finite
    "from 0 to below 1": (lambda x: 0.0 <= x < 1.0, "data.held_out rl.ema rl.sparse_rollouts.zeros"),
    "from 0 to below 2**63": (lambda x: 0 <= x < 1 << 63, "seed"),
}
"""What a number may be, and which are: by dotted key, each of a list alike. No range has NaN; a cap may be infinite."""


def _check(recipe: Recipe, path: Path) -> None:
    model, data, rl, sft, told = recipe.model, recipe.data, recipe.rl, recipe.sft, recipe.eval
    allowed = {
        f"{key} {text}": all(map(fits, _numbers(recipe, key)))
        for text, (fits, keys) in RANGES.items()
        for key in keys.split()
    } | {
        "device auto, cpu, cuda or cuda:N": DEVICES.fullmatch(recipe.device) is not None,
        "model.path or model.init, one of the two": (model.path is None) != (model.init is None),
        "model.width divided by 2 * model.heads": model.heads < 1 or model.width % (2 * model.heads) == 0,
        "data.sources, at least one": bool(data.sources),
        "data.split with one number above 0": max(data.split) > 0.0,
        "a stage: [sft], [reward] or [rl]": any((sft, recipe.reward, rl)),
        "rl.overlong_tokens up to rl.response_tokens": rl is None or rl.overlong_tokens <= rl.response_tokens,
        "eval.response_tokens where eval.reward is set and there is no [rl]": (
            rl is not None or told is None or told.reward in (None, "none") or told.response_tokens is not None
        ),
        "sft.validate_every where sft.patience is set": sft is None or not sft.patience or sft.validate_every > 0,
    }
    broken = [text for text, holds in allowed.items() if not holds]
    if broken:
        raise ConfigError(given=f"{path}: a recipe that does not fit", allowed="; ".join(broken), todo="correct it")


def _numbers(of: object, key: str) -> list[float]:
    """All numbers at a dotted key, none where a table or the number is left out."""
    found = [of]
    for name in key.split("."):
        found = [getattr(one, name) for one in found if one is not None]
        found = [item for one in found for item in (one if isinstance(one, tuple) else (one,))]
    return [cast("float", one) for one in found if one is not None]


def _flat(value: object, at: str) -> dict[str, object]:
    if isinstance(value, dict):
        return {key: leaf for name, inner in value.items() for key, leaf in _flat(inner, f"{at}.{name}").items()}
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return {key: leaf for i, inner in enumerate(value) for key, leaf in _flat(inner, f"{at}.{i}").items()}
    return {at.lstrip("."): tuple(value) if isinstance(value, list) else value}
