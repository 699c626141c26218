"""Language models of Hugging Face: read from a folder or drawn, without dropout, saved as anybody can load them.

Nothing is ever fetched. Source of `tiny-llama`'s shape: Touvron et al., LLaMA, 2023, section 2.2 (the inner width is
8/3 of the outer); embeddings are tied.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tandem.chat import lora, tokenizers
from tandem.chat.forward import head_is_plain
from tandem.chat.placing import ON_CPU
from tandem.chat.template import Template
from tandem.core.durable import sync_below, sync_folder
from tandem.kernels import model_folder
from tandem.kernels.model_folder import ModelFolderError, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tandem.chat.placing import Place
    from tandem.chat.recipe import Model


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model and how it reads.

    Attributes:
        model: The causal language model, in evaluation mode.
        template: Its tokenizer and template.
        context_tokens: How many tokens it can look at.
    """

    model: Any
    template: Template
    context_tokens: int


def check(recipe: Model) -> None:
    """Look, without weights, whether a recipe can begin with its model.

    Raises:
        ModelFolderError: There is no such folder, or its tokenizer or template cannot be used.
        MissingPackageError: transformers is not installed.
    """
    need_packages()
    if recipe.path is None:
        tokenizers.completed(tokenizers.trained("bytes", (), 0), recipe.template, "the recipe")
    else:
        _tokenizer(Path(recipe.path), recipe.template)


def _tokenizer(path: Path, template: str | None) -> Any:  # noqa: ANN401 - transformers has no types
    model_folder.check(path)
    with quiet():
        tokenizer = model_folder.tokenizer_of(path, todo="put its files there")
    tokenizers.completed(tokenizer, template, str(path))
    return tokenizer


def start(recipe: Model, texts: Callable[[], Iterable[str]], seed: int, place: Place = ON_CPU) -> Loaded:
    """Return the model that a recipe begins with.

    Args:
        recipe: Its part on the model.
        texts: The data's texts, for a tokenizer that is yet to be made.
        seed: Of drawn weights.
        place: Where to; weights are drawn on the processor in float32.

    Raises:
        ModelFolderError: There is no such model, or it lacks something.
        MissingPackageError: transformers is not installed.
    """
    if recipe.path is not None:
        return read(Path(recipe.path), place, template=recipe.template)
    need_packages()
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizers.trained(recipe.tokenizer, texts(), recipe.vocabulary)
    tokenizers.completed(tokenizer, recipe.template, "the recipe")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=(recipe.width * 8 // 3 + 15) // 16 * 16,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context_tokens,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    model.to(device=place.device, dtype=place.dtype)
    return Loaded(model.eval(), Template(tokenizer), recipe.context_tokens)


def read(path: Path, place: Place = ON_CPU, *, template: str | None = None) -> Loaded:
    """Load a folder as `save_pretrained` leaves it; a padding token is added where there is none but EOS.

    Args:
        path: The folder.
        place: Where to, and in what type.
        template: A chat template, in the place of its own.

    Raises:
        ModelFolderError: It is no model, not whole, or its tokenizer lacks an EOS.
        MissingPackageError: transformers is not installed.
    """
    need_packages()
    import transformers

    tokenizer = _tokenizer(path, template)
    with quiet():
        model = loaded_whole(transformers.AutoModelForCausalLM, path, place)
    rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > rows:
        if len(tokenizer) > rows + 1:
            raise ModelFolderError(
                given=f"{path}: a tokenizer of {len(tokenizer)} tokens and a model of {rows}",
                allowed="a tokenizer that belongs to the model",
                todo="put the model's own tokenizer into its folder",
            )
        with quiet():
            model.resize_token_embeddings(len(tokenizer))
    if not head_is_plain(model):
        raise ModelFolderError(
            given=f"{path}: a model of the kind {model.config.model_type!r}, which scales or caps its logits",
            allowed="models whose logits are the head's product alone, such as llama, qwen2, gpt2 and opt",
            todo="take another model",
        )
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return Loaded(model, Template(tokenizer), _context_tokens(model.config))


def context_of(path: Path) -> int:
    """Return how many tokens a folder's model can look at; its weights are not read.

    Raises:
        ModelFolderError: Its configuration cannot be read.
    """
    return _context_tokens(model_folder.config_of(path))


def layers_of(path: Path) -> Any:  # noqa: ANN401 - transformers has no types
    """Return a folder's model without its weights, which are not read.

    Raises:
        ModelFolderError: It is no language model.
    """
    import transformers

    return model_folder.without_weights(transformers.AutoModelForCausalLM, path)


def dtype_of(path: Path) -> torch.dtype:
    """Return the type that a folder's model was saved in; its weights are not read.

    Raises:
        ModelFolderError: Its configuration cannot be read.
    """
    return model_folder.config_of(path).dtype or torch.float32


def _context_tokens(config: Any) -> int:  # noqa: ANN401 - transformers has no types
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2048)


def loaded_whole(kind: Any, path: Path, place: Place, **settings: object) -> Any:  # noqa: ANN401 - transformers has no types
    """Return a model of one of transformers' Auto classes, placed, without dropout, all of its weights read.

    Raises:
        ModelFolderError: It cannot be loaded, or tensors are missing.
    """
    model = model_folder.whole_model(kind, path, dtype=place.dtype, prepare=without_dropout, **settings)
    return model.to(place.device)


def without_dropout(config: Any) -> None:  # noqa: ANN401 - transformers has no types
    """Set every probability of dropout to 0: log-probabilities that differ from call to call are none to learn from."""
    for name, value in vars(config).items():
        if ("drop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)


def save(model: Any, template: Template, folder: Path, *, base: str = "") -> None:  # noqa: ANN401
    """Write model and tokenizer aside and rename them into place; what was there goes.

    Args:
        model: Of transformers; adapters are merged into what is saved, and saved alone in `adapter`.
        template: Its tokenizer.
        folder: The place; never seen half-written.
        base: What the adapters' base is called.

    Raises:
        ModelFolderError: The system does not let it be written (no space, no permission).
    """
    aside = folder.with_name(f".{folder.name}.aside")
    try:
        with model_folder.writing(folder), quiet():
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            with lora.merged(model):
                model.save_pretrained(aside)
            lora.save(model, aside / "adapter", base)
            template.tokenizer.save_pretrained(aside)
            _share_weights(aside)
            sync_below(aside)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _share_weights(folder: Path) -> None:
    """Give weights, which safetensors writes for their owner alone, the rights of the files beside them."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.rglob("*.safetensors"):
        file.chmod(mode)


def need_packages() -> None:
    """Check that transformers and tokenizers are there.

    Raises:
        MissingPackageError: One is not.
    """
    model_folder.need_packages("chat", ("transformers", "tokenizers"), "chat")
