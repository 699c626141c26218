"""Configuration: TOML into frozen dataclasses, with overrides, and back.

    @dataclass(frozen=True, kw_only=True)
    class Loop:
        steps: int                    # required: no default
        timeout_s: float = 60.0       # may be given as 60, "90s", "5m" or "1:30:00"

    config = load(Loop, Path("loop.toml"), ["steps=200"])

Nested dataclasses are tables, lists of them arrays of tables. In fields named `_s`, `_bytes` and `_mib`
a text with a unit is allowed, and a number alone counts in the field's own unit. Every error names the
file or the override, the key, what was given and the nearest right key.

Limits: a union of several dataclasses is told apart by pydantic alone, without suggestions; `None` is
written by leaving the key out, so `dump` (in core/toml.py) refuses it where the default is something
else.
"""

import itertools
import re
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tandem.core.errors import ConfigError, QuantityError, TandemError
from tandem.core.nearest import nearest
from tandem.core.toml import dump
from tandem.core.units import parse_duration, parse_size

__all__ = ["dump", "load", "of_table", "with_overrides"]

_NAMED = 5
"""How many further mistakes an error names."""

_TOGETHER = 3
"""How many overrides are looked for that are wrong at a time."""

_TAKEN = {
    "int": "a whole number",
    "int_parsing_size": "a whole number, and a smaller one",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "tuple": "a list, in [ ]",
    "list": "a list, in [ ]",
    "dict": "a table",
    "dataclass": "a table",
    "literal": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}
"""Pydantic's kind of error, but for how it is wrong -> what is said of it."""

_HOW_WRONG = re.compile("_(type|parsing|from_float|error|number)$")

T = TypeVar("T")
Keys = tuple[str | int, ...]


def load(cls: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """Return a validated configuration.

    Args:
        cls: A dataclass.
        path: A TOML file; None starts from nothing.
        overrides: Settings such as `loop.steps=200` or `jobs.0.name=cg`, which win over the file. The value
            is in TOML's syntax; what is not, and what is meant for a text field, is taken as text.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or missing, or a value does not fit.
    """
    settings = [_override(cls, text) for text in overrides]
    values = _read(path) if path is not None else {}
    for keys, value, text in settings:
        _put(values, keys, value, text)
    source = _Source(path, {keys: text for keys, _, text in settings})
    try:
        return TypeAdapter(cls).validate_python(_prepared(cls, values, (), source, cls))
    except ValidationError as error:
        raise _refused(error, source) from error


def of_table(cls: type[T], values: Mapping[str, Any], name: str) -> T:
    """Return a validated configuration from a table that was read already, such as a plug-in's own settings.

    Args:
        cls: A dataclass.
        values: The table.
        name: What the errors call it.

    Raises:
        ConfigError: A key is unknown or missing, or a value does not fit.
    """
    source = _Source(Path(name), {})
    try:
        return TypeAdapter(cls).validate_python(_prepared(cls, dict(values), (), source, cls))
    except ValidationError as error:
        raise _refused(error, source) from error


def with_overrides(read: Callable[[tuple[str, ...]], T], overrides: Sequence[str]) -> T:
    """Return what ``read`` makes of the overrides; what it refuses because of some of them is told with those.

    For checks that come after `load`, which do not know where a value is from.

    Raises:
        TandemError: What ``read`` raises, with ``--set KEY=VALUE`` in front.
    """
    try:
        return read(tuple(overrides))
    except TandemError as error:
        if not error.given.startswith("--set "):
            blamed = [f"--set {text}" for text in _to_blame(read, overrides, error)]
            if blamed:
                given = f"{' '.join(blamed)}: {error.given}"
                raise type(error)(given=given, allowed=error.allowed, todo=error.todo) from error
        raise


def _to_blame(
    read: Callable[[tuple[str, ...]], object], overrides: Sequence[str], refused: TandemError
) -> Iterator[str]:
    """The overrides that are refused.

    They are those of the fewest without which nothing is refused, but for one whose own mistake comes to light after
    this. Where the file is refused in the same way they are those without which less of it is. An override that mends
    the file is not among them: without it, something else is refused.
    """
    places = range(len(overrides))

    def without(*out: int) -> tuple[str, str] | None:
        return _refusal(read, tuple(overrides[place] for place in places if place not in out))

    this = refused.given, refused.allowed
    alone = {place: without(place) for place in places}
    found = [place for place, other in alone.items() if other is None]
    for count in range(2, _TOGETHER + 1):
        sets = itertools.combinations(places, count) if not found else ()
        fewest = next((out for out in sets if without(*out) is None), ())
        found = found or [place for place in fewest if alone[place] != this] or list(fewest)
    for place, other in alone.items():
        if place in found or (not found and other is not None and other[0] == this[0] and other != this):
            yield overrides[place]


def _refusal(read: Callable[[tuple[str, ...]], object], overrides: tuple[str, ...]) -> tuple[str, str] | None:
    """What is refused with these overrides and what would be allowed, None where nothing is."""
    try:
        read(overrides)
    except TandemError as error:
        return error.given, error.allowed
    return None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where each value came from, for the errors."""

    path: Path | None
    overrides: dict[Keys, str]

    def of(self, keys: Keys) -> str:
        for at, text in self.overrides.items():
            if keys[: len(at)] == at:
                return f"--set {text}"
        return str(self.path) if self.path else "the settings"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(given=f"{path}: {error}", allowed="TOML in UTF-8", todo="correct that place") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(given=f"{path}: {reason}", allowed="a readable TOML file", todo="check the path") from error


def _override(cls: type, text: str) -> tuple[Keys, Any, str]:
    """Take `a.b=c` apart; the keys of list items are whole numbers."""
    dotted, equals, given = text.partition("=")
    keys: Keys = tuple(int(key) if key.isdigit() else key for key in dotted.strip().split("."))
    if not equals or "" in keys:
        raise ConfigError(given=f"--set {text}", allowed="KEY=VALUE, as in loop.steps=200", todo="give both")
    try:
        parsed = tomllib.loads(f"value = {given}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": given}
    value = parsed["value"] if len(parsed) == 1 else given
    if not isinstance(value, str) and _is_text(_type_at(cls, keys)):
        value = given.strip()
    return keys, value, text


def _put(values: dict[str, Any], keys: Keys, value: object, text: str) -> None:
    """Set a value in nested tables and lists, making the tables that are missing."""
    here: Any = values
    for key, after in zip(keys, (*keys[1:], None), strict=True):
        fits = isinstance(here, list) and isinstance(key, int) and key < len(here)
        if not fits and not isinstance(here, dict):
            allowed = f"items 0 to {len(here) - 1}" if isinstance(here, list) and here else "keys of tables"
            raise ConfigError(given=f"--set {text}: there is no {key!r}", allowed=allowed, todo="check the key")
        at: Any = key if fits else str(key)
        if after is None:
            here[at] = value
        elif fits:
            here = here[at]
        else:
            here = here.setdefault(at, {})


def _prepared(cls: type, values: object, at: Keys, source: _Source, root: type) -> object:
    """Check a table's keys against a dataclass and read the texts with units in it."""
    if not isinstance(values, dict):
        return values
    known = _fields(cls)
    unknown = [(*at, key) for key in values if key not in known]
    if unknown:
        missing = [(*at, key) for key in known if key not in values and key not in _with_default(cls)]
        raise _unknown(root, unknown, missing, known, source)
    return {key: _converted(known[key], value, (*at, key), source, root) for key, value in values.items()}


def _converted(hint: object, value: object, at: Keys, source: _Source, root: type) -> object:
    nested = [member for member in _members(hint) if is_dataclass(member)]
    if isinstance(value, dict) and len(nested) == 1 and isinstance(nested[0], type):
        return _prepared(nested[0], value, at, source, root)
    for member in _members(hint):
        inner = [part for part in get_args(member) if part is not Ellipsis]
        if isinstance(value, list) and len(inner) == 1:
            return [_converted(inner[0], item, (*at, i), source, root) for i, item in enumerate(value)]
        if isinstance(value, dict) and get_origin(member) is dict:
            return {key: _converted(inner[1], item, (*at, key), source, root) for key, item in value.items()}
    if isinstance(value, str) and not _is_text(hint):
        name = next(key for key in reversed(at) if isinstance(key, str))
        return _quantity(name, value, at, source)
    return value


def _quantity(name: str, value: str, at: Keys, source: _Source) -> object:
    try:
        if name.endswith("_s"):
            return parse_duration(value, bare_unit_s=1.0)
        if name.endswith("_bytes"):
            return parse_size(value)
        if name.endswith("_mib"):
            return parse_size(value, bare_unit_bytes=1 << 20) / (1 << 20)
    except QuantityError as error:
        given = f"{source.of(at)}: {_dotted(at)} = {value!r}"
        raise ConfigError(given=given, allowed=error.allowed, todo=error.todo) from error
    return value


def _unknown(
    root: type, unknown: list[Keys], missing: list[Keys], known: dict[str, object], source: _Source
) -> ConfigError:
    """One error for a table's keys: the first unknown one whole, the others and those missing named behind it."""
    at, *others = unknown
    behind = [f"unknown key {_dotted(one)!r}{_meant(root, one, known, ' ({})')}" for one in others]
    behind += [f"{_dotted(one)!r} is missing" for one in missing]
    return ConfigError(
        given=f"{source.of(at)}: unknown key {_dotted(at)!r}",
        allowed=", ".join(_dotted((*at[:-1], key)) for key in known) or "no keys",
        todo=(_meant(root, at, known, "{}") or "remove it, or choose one of these") + _also(behind),
    )


def _meant(root: type, at: Keys, known: dict[str, object], form: str) -> str:
    """The key that was meant: this one in another table, else the one most like it here; empty where there is none."""
    near = nearest(str(at[-1]), known)
    there = [key for key in _all_keys(root, "") if key.rpartition(".")[2] == at[-1]]
    meant = there or ([_dotted((*at[:-1], near))] if near is not None else [])
    return form.format(f"did you mean {meant[0]!r}?") if meant else ""


def _also(further: list[str]) -> str:
    """Further mistakes, to stand behind the first."""
    more = "; also " + ", ".join(further[:_NAMED]) if further else ""
    return more + (f" and {len(further) - _NAMED} more" if len(further) > _NAMED else "")


def _refused(error: ValidationError, source: _Source) -> ConfigError:
    """Turn pydantic's errors into one, in our words: the first of them whole, the others named behind it."""
    first, *others = error.errors(include_url=False)
    at: Keys = first["loc"]
    more = _also([*map(_briefly, others)])
    if _is_missing(first):
        return ConfigError(
            given=f"{source.of(at)}: {_dotted(at)!r} is missing",
            allowed="it has no default",
            todo=f"add it to the file, or --set {_dotted(at)}=...{more}",
        )
    return ConfigError(
        given=f"{source.of(at)}: {_dotted(at)} = {first['input']!r}" if at else f"{source.of(at)}",
        allowed=_allowed(first),
        todo=f"correct {_dotted(at) or 'it'}{more}",
    )


def _briefly(error: ErrorDetails) -> str:
    """A further mistake in few words."""
    at = _dotted(error["loc"])
    return f"{at!r} is missing" if _is_missing(error) else f"{at} = {error['input']!r} ({_allowed(error)})"


def _is_missing(error: ErrorDetails) -> bool:
    return error["type"] == "missing" or error["type"].endswith("missing_argument")


def _allowed(error: ErrorDetails) -> str:
    """What a key takes, in our words; a check of a dataclass's own speaks for itself."""
    words = _TAKEN.get(_HOW_WRONG.sub("", error["type"]))
    if words is not None:
        return words.format(**error.get("ctx", {}))
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys)


def _fields(cls: Any) -> dict[str, object]:  # noqa: ANN401 - is_dataclass() has been asked before
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def _with_default(cls: Any) -> set[str]:  # noqa: ANN401 - as above
    every = fields(cls)
    return {field.name for field in every if field.default is not MISSING or field.default_factory is not MISSING}


def _members(hint: object) -> Iterator[object]:
    """Yield the types a hint stands for: the members of a union, and what an `Annotated` annotates."""
    if get_origin(hint) is Annotated:
        yield from _members(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _is_text(hint: object) -> bool:
    return str in set(_members(hint))


def _type_at(hint: object, keys: Keys) -> object:
    """Return the type of the value under these keys, None where there is none."""
    if not keys:
        return hint
    for member in _members(hint):
        if is_dataclass(member):
            known = _fields(member)
            return _type_at(known[str(keys[0])], keys[1:]) if str(keys[0]) in known else None
        inner = [part for part in get_args(member) if part is not Ellipsis]
        if inner:
            return _type_at(inner[-1], keys[1:])
    return None


def _all_keys(hint: object, prefix: str) -> Iterator[str]:
    for member in _members(hint):
        if is_dataclass(member):
            for name, inner in _fields(member).items():
                yield prefix + name
                yield from _all_keys(inner, f"{prefix}{name}.")
        elif get_origin(member) in (list, tuple):
            yield from _all_keys(get_args(member)[0], f"{prefix}0.")
