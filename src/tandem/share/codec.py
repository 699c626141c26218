"""Events, decisions, quotes and all they are made of, as JSON and back.

Each dataclass becomes ``{"is": class name, field: value, ...}`` with fields that have their default value left out.
Reading ignores nothing: an unknown class or field is an error, since a log that is half understood replays wrongly.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from tandem.core.errors import StoreError
from tandem.estimate import corun, profile
from tandem.share import events, model

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for module in (model, events, corun, profile)
    for cls in vars(module).values()
    if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
}

_FIELDS: dict[type, tuple[tuple[str, Any], ...]] = {}
_HINTS: dict[type, dict[str, Any]] = {}


def to_json(value: Any) -> Any:  # noqa: ANN401 - any of the classes named above
    """A value of plain dicts, lists, strings and numbers."""
    cls = type(value)
    if cls in (str, int, float, bool, type(None)):
        return value if cls is not float or math.isfinite(value) else {"is": "float", "v": repr(value)}
    if dataclasses.is_dataclass(value):
        out: dict[str, Any] = {"is": cls.__name__}
        for name, default in _fields(cls):
            v = getattr(value, name)
            if v is not default and v != default:
                out[name] = to_json(v)
        return out
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {"is": "map", "v": [[key, to_json(v)] for key, v in value.items()]}
    return [to_json(v) for v in value]


def from_json(value: Any) -> Any:  # noqa: ANN401 - see to_json
    """The inverse of `to_json`.

    Raises:
        StoreError: a class or field that this version does not know, or a field is missing.
    """
    name = str(value.get("is")) if isinstance(value, dict) else repr(value)
    cls = _CLASSES.get(name)
    if cls is None:
        raise _not_ours(name)
    known = _hints(cls)
    unknown = value.keys() - known.keys() - {"is"}
    missing = [field for field, default in _fields(cls) if default is dataclasses.MISSING and field not in value]
    if unknown or missing:
        raise _not_ours(
            name, *(f"with {field}" for field in sorted(unknown)), *(f"without {field}" for field in missing)
        )
    return cls(**{field: _read(v, known[field]) for field, v in value.items() if field != "is"})


def _not_ours(name: str, *how: str) -> StoreError:
    return StoreError(
        given=f"a stored {name} {', '.join(how)}".rstrip(),
        allowed="what this version of tandem writes",
        todo="read it with the version that wrote it",
    )


def _read(value: Any, hint: Any) -> Any:  # noqa: ANN401 - see to_json
    if isinstance(value, dict):
        if value["is"] == "map":
            return {key: _read(v, typing.get_args(hint)[1]) for key, v in value["v"]}
        return float(value["v"]) if value["is"] == "float" else from_json(value)
    if isinstance(value, list):
        origin = typing.get_origin(hint)
        if isinstance(hint, types.UnionType) or origin is typing.Union:
            hint = next(a for a in typing.get_args(hint) if typing.get_origin(a) in (tuple, frozenset))
            origin = typing.get_origin(hint)
        inner = typing.get_args(hint)[0]
        items = (_read(v, inner) for v in value)
        return frozenset(items) if origin is frozenset else tuple(items)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    return value


def _fields(cls: type) -> tuple[tuple[str, Any], ...]:
    found = _FIELDS.get(cls)
    if found is None:
        found = _FIELDS[cls] = tuple(
            (f.name, f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default)
            for f in dataclasses.fields(cls)
        )
    return found


def _hints(cls: type) -> dict[str, Any]:
    found = _HINTS.get(cls)
    if found is None:
        found = _HINTS[cls] = typing.get_type_hints(cls)
    return found
