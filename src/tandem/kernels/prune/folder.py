"""A model's folder: read as it is, written aside and renamed.

Nothing is ever fetched: what is read is a folder with `config.json` and weights in safetensors, as `save_pretrained`
leaves it. The only file here that needs transformers.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.core import plug
from tandem.core.durable import sync_folder
from tandem.core.errors import MissingPackageError
from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.text import Bytes, Tokenize, Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NOTE = "tandem_pruning"
"""Key of `config.json` under which the folder says how it was pruned. Masks are not stored: a zero is a zero."""

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder holds.

    Attributes:
        model: The causal language model, in evaluation mode, in the dtype it was saved in.
        tokenizer: Its tokenizer, None where it has none and tokens are bytes.
        tokenize: Text into its tokens.
        vocabulary: How many tokens it knows.
        most_tokens: How long a window it takes.
    """

    model: Any
    tokenizer: Any
    tokenize: Tokenize
    vocabulary: int
    most_tokens: int


def read(path: Path, device: str = "cpu") -> Loaded:
    """Load a model and its tokenizer.

    Args:
        path: The folder.
        device: Where the model goes, as torch names it.

    Raises:
        PruneError: There is no such model, it is not whole, it is no causal language model, or no such device.
        MissingPackageError: transformers is not installed.
    """
    _need_transformers()
    import transformers

    if not (path / "config.json").is_file():
        raise PruneError(
            given=f"{path} is no model: {'it has no config.json' if path.is_dir() else 'there is no such folder'}",
            allowed="a folder that save_pretrained wrote: config.json and weights in safetensors",
            todo="check the path; a model of the Hub has to be downloaded first",
        )
    where = _device(device)
    with _quiet(transformers):
        model = _model(transformers, path).to(where)
        tokenizer = _tokenizer(transformers, path)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    tokenize = Words(tokenizer) if tokenizer is not None else Bytes(vocabulary)
    most = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048)
    return Loaded(model, tokenizer, tokenize, vocabulary, most)


def save(loaded: Loaded, aside: Path, note: Mapping[str, object]) -> None:
    """Write a model, its tokenizer and how it was pruned into a folder, as `save_pretrained` does.

    Raises:
        PruneError: It cannot be written (no space, no permission).
    """
    _need_transformers()
    import transformers
    from safetensors import SafetensorError

    setattr(loaded.model.config, NOTE, dict(note))
    try:
        with _quiet(transformers):
            loaded.model.save_pretrained(aside)
            if loaded.tokenizer is not None:
                loaded.tokenizer.save_pretrained(aside)
    except (OSError, SafetensorError) as error:
        raise PruneError(
            given=f"the model cannot be written to {aside}: {error}",
            allowed="a folder you may write to, with as much room as the dense model takes",
            todo="choose another path or make room",
        ) from error


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` once it is complete and durable; on an error or Ctrl-C it goes away.

    What a killed run left is taken over and emptied.

    Raises:
        PruneError: `out` is there already, or another run is writing it.
    """
    _refuse_existing(out)
    aside = out.with_name(f".{out.name}.aside")
    aside.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, out)
        for left in aside.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield aside
            _refuse_existing(out)
            _sync(aside)
            aside.rename(out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(out.parent)
    finally:
        os.close(descriptor)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise PruneError(given=f"{out} is there already", allowed="a folder that is new", todo="choose another name")


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PruneError(
            given=f"another run is writing {out}",
            allowed="one run for each folder",
            todo="wait, or choose another name",
        ) from error


def _sync(folder: Path) -> None:
    """Make it durable, and readable to those who may read `config.json`: safetensors writes for the owner alone."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.iterdir():
        file.chmod(mode)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def _device(name: str) -> Any:  # noqa: ANN401 - a device of torch, which is imported where it is needed
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or f"{device.type}{'' if device.type == 'cpu' else f':{device.index or 0}'}" not in there:
        raise PruneError(given=f"--device {name}", allowed=", ".join(there), todo="leave it out to compute on the CPU")
    return device


def _model(transformers: Any, path: Path) -> Any:  # noqa: ANN401 - transformers has no types
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype="auto", local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # its ways to fail are many: a cut file, an unknown architecture, a torn config
        raise PruneError(
            given=f"{path} cannot be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            allowed="a causal language model that this version of transformers knows, with whole weights",
            todo="load it with AutoModelForCausalLM to see more",
        ) from error
    missing = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if missing:
        raise PruneError(
            given=f"{path} lacks {len(missing)} of its tensors, such as {missing[0]}",
            allowed="a model whose weights are whole",
            todo="copy or download it again",
        )
    return model.eval()


def _tokenizer(transformers: Any, path: Path) -> Any:  # noqa: ANN401 - transformers has no types
    if not any((path / name).is_file() for name in _TOKENIZERS):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise PruneError(
            given=f"the tokenizer in {path} cannot be loaded: {str(error).splitlines()[0] or type(error).__name__}",
            allowed="a tokenizer that this version of transformers knows",
            todo="put it right, or take its files away: tokens are bytes then",
        ) from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:  # noqa: ANN401 - transformers has no types
    """Without its bars and warnings on stderr."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _need_transformers() -> None:
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                given=f"pruning needs the package {package!r}, which is not installed",
                allowed="language models of Hugging Face, read by transformers",
                todo=f"run: pip install 'tandemlab[{plug.extra_for('transformers') or 'kernels'}]'",
            )
