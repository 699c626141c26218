"""Plug-ins by file name: the option's name is the name of the file.

`load("share.policies", "hybrid")` looks for `tandem/share/policies/hybrid.py`, then for an entry point
`hybrid` in the group `tandem.share.policies`, then, where the name has a colon, for
`package.module:attribute`. There is no registry to edit: a new file is a new option.
"""

import importlib
import importlib.metadata
import pkgutil
import re
import sys
import types
from pathlib import Path

import tandem
from tandem.core.errors import MissingPackageError, TandemError, UnknownPluginError, in_words
from tandem.core.nearest import did_you_mean

_DISTRIBUTION = "tandemlab"
_KINDS = {
    "share.policies": "policy",
    "share.engines": "engine",
    "share.traces": "trace format",
    "estimate.models": "estimator",
    "data.pack.sources": "kind of source",
    "kernels.prune.methods": "pruning method",
    "kernels.sparse.backends": "backend",
    "chat.algorithms": "algorithm",
    "chat.rewards": "reward",
    "learn.strategies": "strategy",
}
"""What a plug-in of a family is called; others go by the family's name."""

_DISTRIBUTION_OF = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "pynvml": "nvidia-ml-py"}


def names(family: str) -> list[str]:
    """Return the sorted names of a family's plug-ins, without importing any of them.

    Args:
        family: A folder under `tandem`, with dots, such as `share.policies`.
    """
    return sorted(set(_file_names(family)) | set(_entry_points(family).names))


def load(family: str, name: str, protocol: type | None = None, beside: Path | None = None) -> object:
    """Return the plug-in called `name`: the module of a file, or whatever an entry point or attribute holds.

    Args:
        family: A folder under `tandem`, with dots, such as `share.policies`.
        name: A file's stem, an entry point's name, or `package.module:attribute`.
        protocol: The `Protocol` that says what a plug-in of the family exposes; None to take anything.
        beside: A folder where `package.module` is looked for first.

    Raises:
        UnknownPluginError: There is no such plug-in, or no such module; the message lists what exists and the nearest
            name. Or what was found lacks something of `protocol`, or a module from elsewhere cannot be imported.
        MissingPackageError: The plug-in needs an optional package; the message names the extra to install.
    """
    ours = name in _file_names(family)
    try:
        found = (
            importlib.import_module(f"tandem.{family}.{name}") if ours else _elsewhere(family, name, protocol, beside)
        )
    except (TandemError, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == tandem.__name__ and not name.startswith(f"{tandem.__name__}."):
            raise  # a mistake in a plug-in of ours, not a package to install
        raise _missing(family, name, error) from error
    except BaseException as error:
        if ours:
            raise
        raise UnknownPluginError(
            given=f"{_KINDS.get(family, family)} {name!r} cannot be imported: {in_words(error)}",
            allowed="a module that can",
            todo="correct the module, or the name",
        ) from error
    if protocol is not None and (lacking := _lacking(found, protocol)):
        raise UnknownPluginError(
            given=f"{_KINDS.get(family, family)} {name!r} has no {', '.join(lacking)}",
            allowed=f"{', '.join(names(family))}, or what has {', '.join(_members(protocol))}",
            todo="correct the name, or write what it lacks",
        )
    return found


def extra_for(package: str) -> str | None:
    """Return the extra of this distribution that brings an importable package, or None where none does.

    Of several the one that brings the fewest packages, `all` and `dev` aside.
    """
    wanted = _normal(_DISTRIBUTION_OF.get(package, package))
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    brought: dict[str, set[str]] = {}
    for line in requirements:
        if extra := re.search(r"extra == ['\"]([^'\"]+)['\"]", line):
            brought.setdefault(extra[1], set()).add(_normal(re.split(r"[^A-Za-z0-9._-]", line)[0]))
    extras = [extra for extra, packages in brought.items() if wanted in packages]
    return min(extras, key=lambda extra: (extra in ("all", "dev"), len(brought[extra]), extra), default=None)


def _file_names(family: str) -> list[str]:
    folders = [str(Path(root, *family.split("."))) for root in tandem.__path__]
    return [module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_")]


def _entry_points(family: str) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=f"tandem.{family}")


def _members(protocol: type) -> dict[str, bool]:
    """What a plug-in exposes, sorted, and whether each is a function."""
    public = {key for key in vars(protocol) if not key.startswith("_")}
    return {key: key in public for key in sorted(public | protocol.__annotations__.keys())}


def _lacking(found: object, protocol: type) -> list[str]:
    return [
        key
        for key, is_function in _members(protocol).items()
        if not hasattr(found, key) or (is_function and not callable(getattr(found, key)))
    ]


def _elsewhere(family: str, name: str, protocol: type | None, beside: Path | None) -> object:
    """What an entry point or an attribute holds."""
    for entry_point in _entry_points(family).select(name=name):
        return entry_point.load()
    if ":" in name:
        return _attribute(family, name, protocol, beside)
    raise _unknown(family, name)


def _attribute(family: str, name: str, protocol: type | None, beside: Path | None) -> object:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise _unknown(family, name)
    found: object = _module(family, name, module_name, beside)
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        there = vars(importlib.import_module(module_name)).items()
        public = [
            key
            for key, value in there
            if not key.startswith("_")
            and not (isinstance(value, types.ModuleType) if protocol is None else _lacking(value, protocol))
        ]
        nothing = "nothing (the module is empty)" if protocol is None else f"what has {', '.join(_members(protocol))}"
        raise UnknownPluginError(
            given=f"{_KINDS.get(family, family)} {name!r}: module {module_name!r} has no {attribute!r}",
            allowed=", ".join(sorted(public)) or nothing,
            todo=did_you_mean(attribute, public) if public else "check its name",
        ) from error
    return found


def _module(family: str, name: str, module_name: str, beside: Path | None) -> types.ModuleType:
    """Import a module; what is missing may be itself, or a package that it needs."""
    folders = [] if beside is None else [str(beside)]
    sys.path[:0] = folders
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        file = f"{module_name.replace('.', '/')}.py"
        raise UnknownPluginError(
            given=f"{_KINDS.get(family, family)} {name!r}: there is no module {module_name!r}",
            allowed=", ".join(
                [*names(family), *(f"{file} in {folder}" for folder in folders), "a module on Python's path"]
            ),
            todo=did_you_mean(
                module_name, [one.stem for one in beside.glob("*.py")] if beside else [], "check its name"
            ),
        ) from error
    finally:
        for folder in folders:
            sys.path.remove(folder)


def _unknown(family: str, name: str) -> UnknownPluginError:
    existing = names(family)
    return UnknownPluginError(
        given=f"unknown {_KINDS.get(family, family)} {name!r}",
        allowed=", ".join([*existing, "or package.module:attribute"]),
        todo=did_you_mean(name, existing),
    )


def _missing(family: str, name: str, error: ModuleNotFoundError) -> MissingPackageError:
    missing = error.name or in_words(error, kind=False)
    package = missing.partition(".")[0]
    extra = extra_for(package)
    remedy = f"{_DISTRIBUTION}[{extra}]" if extra else _DISTRIBUTION_OF.get(package, package)
    of_a_user = ":" in name and not extra  # a package by a name that may be a slip of theirs
    return MissingPackageError(
        given=f"{_KINDS.get(family, family)} {name!r} needs the package {missing!r}, which is not installed",
        allowed="plug-ins whose packages are installed",
        todo="install what brings it, or correct that import" if of_a_user else f"run: pip install '{remedy}'",
    )


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
