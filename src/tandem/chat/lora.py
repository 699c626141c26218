"""Low-rank adapters: what learns in the place of a model's own weights, put in and taken out of its linear layers.

    lora.put_in(policy, recipe.lora, seed=0)      # base weights are frozen, and stay what they are to the bit
    with lora.off(policy): ...                    # the model as it was: the reference needs no copy of its own
    with lora.merged(policy): ...                 # a model without adapters that says the same: to be saved

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021; the layers are PEFT's. Without dropout, as
everywhere here: log-probabilities that differ from call to call are none to learn from.
"""

from __future__ import annotations

import copy
import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast, final

import torch

from tandem.core import plug
from tandem.core.clean_stdout import hush_deepspeed
from tandem.core.errors import MissingPackageError
from tandem.kernels.model_folder import ModelFolderError
from tandem.learn import sharding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from tandem.chat.recipe import Lora

ADAPTER = "default"


def put_in(model: Any, settings: Lora | None, seed: int) -> None:  # noqa: ANN401 - transformers has no types
    """Give a model adapters that change nothing yet, and freeze everything else; without settings leave it alone.

    Args:
        model: A causal language model; it is changed in place.
        settings: Rank, scale and which layers.
        seed: Of the one factor that is not 0.

    Raises:
        ModelFolderError: No layer is called as the settings say.
        MissingPackageError: PEFT is not installed.
    """
    if settings is None:
        return
    need_package()
    import peft

    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(settings.targets) or "all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model, ADAPTER)
        except ValueError as error:
            raise ModelFolderError(
                given=f"lora.targets {list(settings.targets)} in a {type(model).__name__}",
                allowed="names of its linear layers, such as q_proj and v_proj of Llama; none for all of them",
                todo="correct them, or leave them out",
            ) from error
    model.eval()


@contextmanager
def off(model: nn.Module) -> Iterator[None]:
    """Switch adapters off while the block runs; a model without any stays what it is."""
    layers = [layer for _, _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Put plain layers with merged weights in the places of adapted ones while the block runs."""
    found = _layers(model)
    with torch.no_grad():
        for parent, name, layer in found:
            setattr(parent, name, _plain(layer))
    try:
        yield
    finally:
        for parent, name, layer in found:
            setattr(parent, name, layer)


def save(model: nn.Module, folder: Path, base: str) -> None:
    """Write the adapters alone, as PEFT loads them over the model they were trained on; nothing where there are none.

    Args:
        model: With its adapters in.
        folder: New.
        base: What their base model is called in their configuration.
    """
    if not _layers(model):
        return
    import peft
    from safetensors.torch import save_file

    states = peft.get_peft_model_state_dict(model, adapter_name=ADAPTER)
    folder.mkdir()
    save_file(
        {f"base_model.model.{name}": value.contiguous() for name, value in states.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config: Any = copy.copy(cast("Any", model).peft_config[ADAPTER])
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)


@final
class Learnt:
    """What of a model learns, for a checkpoint: all of it, or its adapters alone."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters (and, of a whole model, buffers) by name, as this rank has them."""
        if not _layers(self._model):
            return dict(self._model.state_dict(keep_vars=True))
        return {name: value for name, value in self._model.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them over.

        Raises:
            RuntimeError: They are another model's.
        """
        if not _layers(self._model):
            sharding.load(self._model, state)
            return
        learnt = {name: value for name, value in self._model.named_parameters() if value.requires_grad}
        if learnt.keys() != state.keys():
            message = f"adapters of {len(state)} matrices for a model of {len(learnt)}"
            raise RuntimeError(message)
        for name, value in learnt.items():
            sharding.put(value, state[name])


def need_package() -> None:
    """Check that PEFT is there.

    Raises:
        MissingPackageError: It is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingPackageError(
            given="[lora] needs the package 'peft', which is not installed",
            allowed="training all weights without it",
            todo=f"run: pip install 'tandemlab[{plug.extra_for('peft') or 'chat'}]'",
        )
    hush_deepspeed()


def _layers(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Adapted layers with their parents and their names there."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if hasattr(child, "get_delta_weight") and hasattr(child, "base_layer")
    ]


def _plain(layer: Any) -> nn.Module:  # noqa: ANN401  # one of PEFT's layers
    """A layer like an adapted one's base, with merged weights of its own; all else is shared."""
    base: nn.Module = layer.base_layer
    plain = copy.copy(base)
    plain._parameters = dict(base._parameters)
    weight = base.weight + layer.get_delta_weight(ADAPTER).to(base.weight.dtype)
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    return plain
