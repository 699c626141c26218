"""A model's folder: read as it is, written aside and renamed.

The only file here that needs transformers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.core.durable import sync_folder
from tandem.kernels import model_folder
from tandem.kernels.model_folder import quiet
from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.text import Bytes, Tokenize, Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NOTE = "tandem_pruning"
"""Key of `config.json` under which the folder says how it was pruned. Masks are not stored: a zero is a zero."""

_LONG = 200
"""Bytes of a name from which on it is not put in a longer one; names have 255 at most."""

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
        ModelFolderError: There is no such model, it is not whole, or it is no causal language model.
        PruneError: There is no such device.
        MissingPackageError: transformers is not installed.
    """
    need_packages()
    import transformers

    model_folder.check(path)
    where = _device(device)
    with quiet():
        model = model_folder.whole_model(transformers.AutoModelForCausalLM, path, dtype="auto").to(where)
        tokenizer = _tokenizer(path)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    tokenize = Words(tokenizer) if tokenizer is not None else Bytes(vocabulary)
    most = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048)
    return Loaded(model, tokenizer, tokenize, vocabulary, most)


def save(loaded: Loaded, aside: Path, note: Mapping[str, object]) -> None:
    """Write a model, its tokenizer and how it was pruned into a folder, as `save_pretrained` does.

    Raises:
        ModelFolderError: It cannot be written (no space, no permission).
    """
    need_packages()
    setattr(loaded.model.config, NOTE, dict(note))
    with quiet(), model_folder.writing(aside):
        loaded.model.save_pretrained(aside)
        if loaded.tokenizer is not None:
            loaded.tokenizer.save_pretrained(aside)


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` once it is complete and durable; on an error or Ctrl-C it goes away.

    What a killed run left is taken over and emptied.

    Raises:
        PruneError: `out` is there already, or another run is writing it.
    """
    _refuse_existing(out)
    aside = out.with_name(f".{_short(out.name)}.aside")
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
    try:
        out.lstat()  # a link that leads nowhere is there too
    except FileNotFoundError:
        return
    except OSError as error:
        given = f"{out}, which cannot be a folder's name ({error.strerror})"
        raise PruneError(given=given, allowed="a folder that is new", todo="choose another name") from error
    raise PruneError(given=f"{out} is there already", allowed="a folder that is new", todo="choose another name")


def _short(name: str) -> str:
    """Return a name that leaves room for what stands before and after it, the same each time."""
    return name if len(os.fsencode(name)) <= _LONG else hashlib.sha256(os.fsencode(name)).hexdigest()


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


def _tokenizer(path: Path) -> Any:  # noqa: ANN401 - transformers has no types
    if not any((path / name).is_file() for name in _TOKENIZERS):
        return None
    return model_folder.tokenizer_of(path, todo="put it right, or take its files away: tokens are bytes then")


def need_packages() -> None:
    """Check that torch and transformers are there.

    Raises:
        MissingPackageError: One is not.
    """
    model_folder.need_packages("pruning", ("torch", "transformers"), "kernels")
