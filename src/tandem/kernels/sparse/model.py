"""A whole model with sparse weights: swap its pruned layers, save it, load it without ever making it dense.

    report = sparsify(model, torch.bfloat16)
    save_pretrained(model, Path("sparse"))
    model = load_pretrained(Path("sparse"))

Works on any torch model; loading is for causal language models of Hugging Face, whose folder layout is kept but for
the weights: config.json, generation_config.json and sparse.safetensors, in which sparse weights stand beside dense
tensors. `from_pretrained` of transformers finds no weights there and says so.
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tandem.core.errors import MissingPackageError
from tandem.kernels.sparse import choosing, files, layers
from tandem.kernels.sparse.arranged import ArrangedLinear
from tandem.kernels.sparse.format import check, pack
from tandem.kernels.sparse.linear import SparseLinear
from tandem.kernels.sparse.mistakes import SparseFormatError, SparseShapeError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator, Mapping

    from tandem.kernels.sparse.format import SparseWeight

WEIGHTS = "sparse.safetensors"
_FORMERLY = "model.safetensors"
"""Read too. transformers finds this one, and begins the sparse layers at random with no more than a warning."""
WORTH_IT = {torch.bfloat16: 0.85, torch.float16: 0.85, torch.int8: 1.0}
"""Up to which density a packed weight is smaller than a dense one of 16 bits by enough to be worth it."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """What became of one linear layer.

    Attributes:
        name: Its name in the model.
        rows: Outputs.
        cols: Inputs.
        density: The share of its weights that are not zero.
        bits_per_weight: What it takes now; None where it stays dense.
        why_dense: Why it stays dense; empty where it does not.
    """

    name: str
    rows: int
    cols: int
    density: float
    bits_per_weight: float | None
    why_dense: str


def sparsify(
    model: nn.Module,
    dtype: torch.dtype = torch.bfloat16,
    *,
    skip: Collection[str] = ("lm_head",),
    unread: Collection[str] = (),
    backend: str = "",
) -> list[Swapped]:
    """Swap a model's linear layers for sparse ones, in place; nothing dense is kept of those.

    The `save_pretrained` of a model of Hugging Face refuses from then on: what it writes, nothing reads.

    Args:
        model: Pruned before: its zeros are what is left out.
        dtype: `torch.bfloat16`, `torch.float16` or `torch.int8`.
        skip: Last parts of the names of layers to leave as they are.
        unread: Last parts of the names of layers to swap though the module that they are in reads their weight: where
            it does so in a branch that is not taken (Bloom's). If it is taken, the read is refused.
        backend: A backend's name; empty for the best.

    Returns:
        One entry a linear layer. Those stay dense, and say why, that have too few zeros, a forward of their own,
        hooks, a weight that is computed (`torch.nn.utils.prune`), or a weight or bias that another layer has too, or
        whose weight the module that they are in reads by itself (Mamba's `dt_proj`).

    Raises:
        SparseShapeError: An unknown type of values, a single linear layer in place of a model, or a layer that cannot
            be packed (NaN where int8 is asked for); the model is as it was.
        UnknownPluginError: There is no backend of that name.
        BackendError: It cannot run on this machine.
    """
    if dtype not in WORTH_IT:
        raise SparseShapeError(
            given=f"values of type {dtype}", allowed=", ".join(map(str, WORTH_IT)), todo="choose one of these types"
        )
    weights = layers.linear_weights(model)
    if "" in weights:
        raise SparseShapeError(
            given="a linear layer, which cannot be swapped within itself",
            allowed="models that hold linear layers",
            todo="call SparseLinear.from_dense(layer), or sparsify(nn.Sequential(layer)) for kinds of its own",
        )
    if backend:
        choosing.backend(backend)
    skip = {skip} if isinstance(skip, str) else skip
    unread = {unread} if isinstance(unread, str) else unread
    shared = _shared(model)
    reasons = {name: _why_dense(model, name, weight, dtype, skip, shared) for name, weight in weights.items()}
    reasons |= {name: why or layers.why_not(model, name, unread) for name, why in reasons.items()}
    for name, weight in weights.items():
        if not reasons[name]:
            _check(name, weight, dtype)
    report = []
    for name, weight in weights.items():
        (rows, cols), density = weight.shape, _density(weight)
        bits = None
        if not reasons[name]:
            dense: Any = model.get_submodule(name)
            layer = SparseLinear(pack(weight, dtype), dense.bias, backend=backend)
            _put(model, name, layer)
            bits = layer.weight.bits_per_weight
        report.append(Swapped(name, rows, cols, density, bits, reasons[name]))
    _let_own_saving_refuse(model)
    return report


def resident_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, each storage once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(model)}
    return sum(storages.values())


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write config.json and sparse.safetensors; what its kind ties is stored once. On an error nothing is left.

    Args:
        model: A model after `sparsify`.
        folder: Made if need be.

    Raises:
        SparseFormatError: The folder or its files cannot be written, it holds a dense model, or layers are arranged.
    """
    folder = Path(folder)
    if arranged := next((name for name, part in model.named_modules() if isinstance(part, ArrangedLinear)), ""):
        raise SparseFormatError(
            given=f"a model whose layer {arranged} is arranged for a GPU",
            allowed="sparse and dense layers",
            todo="save it before it is arranged",
        )
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SparseFormatError(
            given=f"{folder}, which cannot be made: {error}",
            allowed="a folder, or a place where one can be made",
            todo="choose another place",
        ) from error
    found = [file for kind in ("model*.safetensors", "pytorch_model*.bin") for file in sorted(folder.glob(kind))]
    if dense_file := next((file for file in found if not files.is_sparse(file)), None):
        raise SparseFormatError(
            given=f"{folder}, in which {dense_file.name} has weights that transformers would read in place of these",
            allowed="a folder without a dense model",
            todo="choose another folder",
        )
    try:
        _write(model, folder)
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _write(model: Any, folder: Path) -> None:  # noqa: ANN401 - a model of transformers
    """Write the small files aside and move them to their places once the weights are there: none is ever seen torn."""
    weights, dense = _contents(model)
    try:
        with tempfile.TemporaryDirectory(prefix=".", suffix=".aside", dir=folder) as aside:
            for part in ("config", "generation_config"):
                if hasattr(getattr(model, part, None), "save_pretrained"):
                    getattr(model, part).save_pretrained(aside)
            files.save(folder / WEIGHTS, weights, dense)
            for file in Path(aside).iterdir():
                file.replace(folder / file.name)
        (folder / _FORMERLY).unlink(missing_ok=True)
    except OSError as error:
        raise files.unwritable(folder, error) from error
    except ValueError as error:  # transformers looks whether options of generation make sense
        raise SparseFormatError(
            given=f"a model with a configuration that cannot be written: {error}",
            allowed="what config.save_pretrained and generation_config.save_pretrained write",
            todo="set right what is named, such as in model.generation_config",
        ) from error


def _contents(model: nn.Module) -> tuple[dict[str, SparseWeight], dict[str, torch.Tensor]]:
    """Return what a model's file holds: (sparse weights, dense tensors), by name."""
    packed = {name: part for name, part in model.named_modules() if isinstance(part, SparseLinear)}
    weights = {f"{name}.weight": layer.weight for name, layer in packed.items()}
    inside = {f"{name}.{part}" for name in packed for part in ("masks", "values", "starts", "scales")}
    tied: Collection[str] = getattr(model, "all_tied_weights_keys", ())  # what its kind ties again when it is loaded
    dense, seen = {}, set[int]()
    for name, tensor in model.state_dict().items():
        is_shared = tensor.numel() and tensor.data_ptr() in seen
        if name in inside or (is_shared and name in tied):
            continue
        seen.add(tensor.data_ptr())
        dense[name] = tensor.clone() if is_shared else tensor
    return weights, dense


def load_pretrained(folder: str | os.PathLike[str], *, backend: str = "") -> Any:  # noqa: ANN401 - a model of transformers
    """Load a causal language model that `save_pretrained` wrote; dense weights of its sparse layers are never made.

    Raises:
        SparseFormatError: The folder is no such model, or damaged.
        UnknownPluginError: There is no backend of that name.
        BackendError: It cannot run on this machine.
        MissingPackageError: transformers is not installed.
    """
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            given="a language model to load, but the package transformers is not installed",
            allowed="language models where transformers is installed",
            todo="run: pip install 'tandemlab[kernels]'",
        ) from error
    folder = Path(folder)
    if backend:
        choosing.backend(backend)
    formerly = (folder / _FORMERLY).exists() and not (folder / WEIGHTS).exists()
    weights, dense = files.load(folder / (_FORMERLY if formerly else WEIGHTS))
    dtype = next((tensor.dtype for tensor in dense.values() if tensor.is_floating_point()), torch.float32)
    try:
        config = AutoConfig.from_pretrained(folder)
        generation = (folder / "generation_config.json").exists() and GenerationConfig.from_pretrained(folder)
        with _parameters_without_values():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged configuration fails in many ways
        raise _no_model(folder, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    _fill(model, weights, dense, folder, backend)
    _let_own_saving_refuse(model)
    if generation:
        model.generation_config = generation
    return model.eval()


def _fill(
    model: Any,  # noqa: ANN401 - a model of transformers
    weights: Mapping[str, SparseWeight],
    dense: dict[str, torch.Tensor],
    folder: Path,
    backend: str,
) -> None:
    """Put weights and tensors into a model that has none yet."""
    places = layers.linear_weights(model)
    for name, weight in weights.items():
        place = name.removesuffix(".weight")
        bias = dense.pop(f"{place}.bias", None)
        if place not in places:
            raise _no_model(folder, f"the model of its config.json has no layer {place}")
        rows, cols = places[place].shape
        if (weight.rows, weight.cols) != (rows, cols):
            told = f"{place} is {weight.rows} x {weight.cols} in the file and {rows} x {cols} by its config.json"
            raise _no_model(folder, told)
        if (bias is None) != (model.get_submodule(place).bias is None):
            raise _no_model(folder, f"{place} has a bias in one alone of the file and its config.json")
        if name in getattr(model, "all_tied_weights_keys", ()):
            raise _tied(folder, name)
        _put(model, place, SparseLinear(weight, bias, backend=backend))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    stored = {id(parameter): dense[name] for name, parameter in parameters.items() if name in dense}
    tied = {name: stored[id(parameter)] for name, parameter in parameters.items() if id(parameter) in stored}
    try:
        absent, unknown = model.load_state_dict({**tied, **dense}, strict=False, assign=True)
    except RuntimeError as error:  # another shape
        raise _no_model(folder, str(error)) from error
    if unknown:
        raise _no_model(folder, f"the model of its config.json has no {min(unknown)}")
    model.tie_weights()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if lost := next((name for name in dense if name in parameters and not _same(parameters[name], dense[name])), ""):
        raise _tied(folder, lost)
    packed = tuple(name.removesuffix("weight") for name in weights)
    for name in absent:
        if not name.startswith(packed) and (name not in parameters or parameters[name].is_meta):
            raise _no_model(folder, f"{name} is missing from its weights")


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


@contextmanager
def _parameters_without_values() -> Iterator[None]:
    """Let modules that this thread makes have no memory for parameters, but their buffers, computed as ever.

    Buffers that are not stored (rotary frequencies, causal masks) are so what the model's own code makes of its
    configuration, whatever kind it is.
    """
    thread = threading.get_ident()

    def without_values(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        del module, name
        if parameter.is_meta or threading.get_ident() != thread:
            return None  # as it is
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(without_values)  # type: ignore[arg-type]  # torch says None alone
    try:
        yield
    finally:
        hook.remove()


def _let_own_saving_refuse(model: nn.Module) -> None:
    """Replace `save_pretrained` of what holds sparse layers, on these objects alone."""
    for part in model.modules():
        if hasattr(part, "save_pretrained") and any(isinstance(inner, SparseLinear) for inner in part.modules()):
            owner: Any = part
            owner.save_pretrained = _refuse_own_saving


def _refuse_own_saving(*_: object, **__: object) -> NoReturn:
    raise SparseFormatError(
        given="a model with sparse layers, to be written by its own save_pretrained",
        allowed="models whose layers are all dense",
        todo="call tandem.kernels.sparse.model.save_pretrained(model, folder)",
    )


def _check(name: str, weight: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse a layer that cannot be packed, by its name."""
    try:
        check(weight, dtype)
    except SparseShapeError as error:
        raise SparseShapeError(
            given=f"layer {name} with {error.given}", allowed=error.allowed, todo=f"{error.todo}; nothing was changed"
        ) from error


def _density(weight: torch.Tensor) -> float:
    known = weight.numel() and not weight.is_meta and weight.layout == torch.strided
    return float((weight != 0).float().mean()) if known else 0.0


def _why_dense(
    model: nn.Module, name: str, weight: torch.Tensor, dtype: torch.dtype, skip: Collection[str], shared: set[int]
) -> str:
    if name.rpartition(".")[2] in skip:
        return "left out by name"
    if weight.data_ptr() in shared:
        return "its weight is shared with another layer"
    bias = getattr(model.get_submodule(name), "bias", None)
    if isinstance(bias, torch.Tensor) and not nn.parameter.is_lazy(bias) and bias.data_ptr() in shared:
        return "its bias is shared with another layer"  # two parameters over one memory would be trained twice
    density = _density(weight)
    if density > WORTH_IT[dtype]:
        return f"{1 - density:.0%} zeros are too few"
    return ""


def _shared(model: nn.Module) -> set[int]:
    """Addresses of parameters that more than one module holds."""
    seen, twice = set[int](), set[int]()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        if address := 0 if nn.parameter.is_lazy(parameter) else parameter.data_ptr():  # 0 where there are no values
            (twice if address in seen else seen).add(address)
    return twice


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    owner = model.get_submodule(parent)
    getattr(owner, last)
    setattr(owner, last, layer)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _tied(folder: Path, name: str) -> SparseFormatError:
    return _no_model(folder, f"by its config.json {name} is another's (tie_word_embeddings), but the file has its own")


def _no_model(folder: Path, why: str) -> SparseFormatError:
    return SparseFormatError(
        given=f"{folder}, which is no sparse model: {why}",
        allowed=f"a folder with config.json and {WEIGHTS}",
        todo="write it with tandem.kernels.sparse.model.save_pretrained",
    )
