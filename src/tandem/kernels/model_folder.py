"""A Hugging Face folder, for all who read or write one: looked at, read whole, and refused in words where it is not.

Nothing is ever fetched: what is read is a folder with `config.json` and weights in safetensors, as `save_pretrained`
leaves it. Needs transformers, which is imported where it is used.
"""

from __future__ import annotations

import importlib.util
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tandem.core import plug
from tandem.core.errors import MissingPackageError, TandemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class ModelFolderError(TandemError):
    """A folder that is no model, that none can be written to, or a model and a tokenizer that do not fit together."""


def need_packages(what: str, packages: Sequence[str], extra: str) -> None:
    """Check that packages are there.

    Args:
        what: Who needs them.
        packages: Their names, as they are imported.
        extra: Which extra brings them, where the package's own list does not say.

    Raises:
        MissingPackageError: One is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                given=f"{what} needs the package {package!r}, which is not installed",
                allowed="language models of Hugging Face, read by transformers",
                todo=f"run: pip install 'tandemlab[{plug.extra_for(package) or extra}]'",
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and warnings of transformers on stderr."""
    import transformers

    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell in words that a model could not be written to a folder while the block ran.

    Raises:
        ModelFolderError: The system refused it (no space, no permission).
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(
            given=f"the model cannot be written to {path}: {error}",
            allowed="a folder you may write to, with as much room as the dense model takes",
            todo="choose another path or make room",
        ) from error


def check(path: Path) -> None:
    """Look whether a folder can be a model at all.

    Raises:
        ModelFolderError: It cannot.
    """
    file = path / "config.json"
    why, todo = None, "check the path; a model of the Hub has to be downloaded first"
    if not path.is_dir():
        why = "there is no such folder"
    elif not file.is_file():
        why = "it has no config.json"
    elif (path / "sparse.safetensors").is_file():
        why, todo = "it is packed already (sparse.safetensors)", "give the dense folder that it was made of"
    else:
        try:
            if not isinstance(json.loads(file.read_text(encoding="utf-8")), dict):
                why = "its config.json is no object"
        except ValueError:
            why = "its config.json is no JSON"
    if why:
        raise ModelFolderError(
            given=f"{path} is no model: {why}",
            allowed="a folder that save_pretrained wrote: config.json and weights in safetensors",
            todo=todo,
        )


def config_of(path: Path, **settings: object) -> Any:  # noqa: ANN401 - transformers has no types
    """Return a folder's configuration, with settings over it.

    Raises:
        ModelFolderError: It cannot be read.
    """
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(path, local_files_only=True, **settings)
    except Exception as error:  # an unknown architecture, a torn config, ...
        raise _not_loaded(path, error) from error


def whole_model(
    kind: Any,  # noqa: ANN401 - transformers has no types
    path: Path,
    *,
    dtype: Any,  # noqa: ANN401 - a dtype of torch, or "auto"
    prepare: Callable[[Any], None] = lambda config: None,
    **settings: object,
) -> Any:  # noqa: ANN401 - transformers has no types
    """Return a model of one of transformers' Auto classes, in evaluation mode, all of its weights read.

    Args:
        kind: The Auto class.
        path: The folder.
        dtype: Of its weights; "auto" for the one they were saved in.
        prepare: May change its configuration before it is made.
        settings: Over its configuration.

    Raises:
        ModelFolderError: It cannot be loaded, or tensors are missing.
    """
    config = config_of(path, **settings)
    prepare(config)
    try:
        model, loading = kind.from_pretrained(
            path, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # a cut file, ...
        raise _not_loaded(path, error) from error
    missing = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if missing:
        raise ModelFolderError(
            given=f"{path} lacks {len(missing)} of its tensors, such as {missing[0]}",
            allowed="a model whose weights are whole",
            todo="copy or download it again",
        )
    return model.eval()


def without_weights(kind: Any, path: Path) -> Any:  # noqa: ANN401 - transformers has no types
    """Return a model of one of transformers' Auto classes on torch's meta device: no weight is read.

    Raises:
        ModelFolderError: Its configuration cannot be read, or is none of that class.
    """
    import torch

    config = config_of(path)
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except Exception as error:  # an architecture that is no such model
        raise _not_loaded(path, error) from error


def tokenizer_of(path: Path, todo: str) -> Any:  # noqa: ANN401 - transformers has no types
    """Return a folder's tokenizer.

    Args:
        path: The folder.
        todo: What to do where it has none that can be read.

    Raises:
        ModelFolderError: It has none, or one that cannot be read.
    """
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # its ways to fail are many
        raise ModelFolderError(
            given=f"the tokenizer in {path} cannot be loaded: {_first_line(error)}",
            allowed="a tokenizer beside the model, as save_pretrained leaves it",
            todo=todo,
        ) from error


def _not_loaded(path: Path, error: Exception) -> ModelFolderError:
    return ModelFolderError(
        given=f"{path} cannot be loaded: {_first_line(error)}",
        allowed="a causal language model that this version of transformers knows, with whole weights",
        todo="load it with AutoModelForCausalLM to see more",
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
