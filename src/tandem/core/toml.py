"""Configuration written as TOML: the inverse of `tandem.core.config.load`.

Limits: TOML has no null, so `None` is written by leaving the key out, and refused where the field's
default is something else; comments and the order of an earlier file are not kept.
"""

import datetime
import enum
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dump(config: object) -> str:
    """Return a dataclass as TOML, nested dataclasses as tables, lists of them as arrays of tables.

    Raises:
        TypeError: A value has no form in TOML.
        ValueError: A value is None although its field's default is not.
    """
    return "\n".join(_table(config, "")) + "\n"


def _table(config: object, prefix: str) -> Iterator[str]:
    """Yield a table's own values, then the tables within it: TOML wants them in this order."""
    values = dict(_values(config))
    tables = {key: value for key, value in values.items() if _is_table(value)}
    for key, value in values.items():
        if key not in tables:
            yield f"{_key(key)} = {_inline(value)}"
    for key, value in tables.items():
        name = f"{prefix}{_key(key)}"
        for item in value if isinstance(value, list | tuple) else [value]:
            yield ""
            yield f"[[{name}]]" if isinstance(value, list | tuple) else f"[{name}]"
            yield from _table(item, f"{name}.")


def _values(config: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401 - a dataclass, as the caller knows
    for field in fields(config):
        value = getattr(config, field.name)
        if not field.init:
            continue
        if value is not None:
            yield field.name, value
        elif _default(field) is not None:
            message = f"{field.name} is None, which TOML cannot say: only fields whose default is None may be"
            raise ValueError(message)


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is_table(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(is_dataclass(item) for item in value)
    return is_dataclass(value)


def _inline(value: object) -> str:
    """Return a value as it stands after the equals sign."""
    if isinstance(value, enum.Enum):
        return _inline(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else str(float(value))
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple | set | frozenset):
        items = [_inline(item) for item in value]
        return f"[{', '.join(sorted(items) if isinstance(value, set | frozenset) else items)}]"
    if is_dataclass(value) or isinstance(value, Mapping):
        pairs = value.items() if isinstance(value, Mapping) else _values(value)
        return f"{{{', '.join(f'{_key(str(key))} = {_inline(item)}' for key, item in pairs)}}}"
    message = f"{type(value).__name__} has no form in TOML: {value!r}"
    raise TypeError(message)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _text(value: str) -> str:
    """Return a basic string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
