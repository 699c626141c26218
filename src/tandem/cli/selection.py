"""Jobs as users name them: `12` is a job or a whole array, `12_3` the element of array 12 with index 3."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tandem.cli.words import ranges
from tandem.core.errors import ConfigError, UnknownJobError

if TYPE_CHECKING:
    import click

    from tandem.share.daemon.client import Client

View = Mapping[str, Any]

Texts = TypeVar("Texts", str, tuple[str, ...])

_FORM = re.compile(r"([0-9]{1,18})(?:_([0-9]{1,18}))?")
_HISTORY = 100_000


def resolve(
    client: Client, texts: Sequence[str], *, live: bool = False, queue: Sequence[View] | None = None
) -> list[int]:
    """Return the ids that are meant, each once, in the order given.

    Args:
        live: of a whole array only the elements that have not ended; its first where all have.
        queue: all live jobs, if they were asked for already.

    Raises:
        ConfigError: a text is no id.
        UnknownJobError: no job has it.
    """
    arrays: dict[int, dict[int, int]] = {}
    found: dict[int, None] = {}
    for first, index in map(parse, texts):
        array = client.show(first)["array"]
        if array is None or array[0] != first:
            if index is not None:
                raise UnknownJobError(
                    given=f"job {first}_{index}, and job {first} is no array",
                    allowed=f"{first} alone, and elements of arrays",
                    todo="see `tandem queue --all`",
                )
            found[first] = None
            continue
        if first not in arrays:
            found_there = elements(client, first, live=live and index is None, queue=queue)
            arrays[first] = {place: view["id"] for place, view in found_there.items()}
        if index is None:
            found.update(dict.fromkeys([*arrays[first].values()] or [first]))
        elif index in arrays[first]:
            found[arrays[first][index]] = None
        else:
            raise _unknown(first, index, f"the indices of array {first}: {ranges(list(arrays[first]))}")
    return list(found)


def one(client: Client, text: str) -> int:
    """Return the one id that is meant; an array's first id means its first element."""
    _, index = parse(text)
    return resolve(client, [text])[0] if index is not None else int(text)


def parse(text: str) -> tuple[int, int | None]:
    """Return the id, and the index in the array where one is given.

    Raises:
        ConfigError: it is no id.

    >>> parse("12"), parse("12_3")
    ((12, None), (12, 3))
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(
            given=f"job {text!r}",
            allowed="an id such as 12, or 12_3 of an array",
            todo="see `tandem queue`; write several one after the other: 12 13 14",
        )
    return int(match[1]), None if match[2] is None else int(match[2])


def label(view: View) -> str:
    """Write a job's id as users give it."""
    array = view.get("array")
    return str(view["id"]) if array is None else f"{array[0]}_{array[1]}"


def checked(ctx: click.Context, param: click.Parameter, value: Texts) -> Texts:
    """Refuse a text that is no id before the daemon is asked (a callback of an argument)."""
    del ctx, param
    for text in [value] if isinstance(value, str) else value:
        parse(text)
    return value


def elements(client: Client, first: int, *, live: bool = False, queue: Sequence[View] | None = None) -> dict[int, View]:
    """Index -> element of an array, in the order of ids.

    Args:
        live: only those that have not ended.
        queue: all live jobs, if they were asked for already.
    """
    views = [*(client.queue() if queue is None else queue), *([] if live else client.history(limit=_HISTORY))]
    ours = [view for view in views if view.get("array") and view["array"][0] == first]
    return {view["array"][1]: view for view in sorted(ours, key=lambda view: int(view["id"]))}


def _unknown(first: int, index: int, allowed: str) -> UnknownJobError:
    return UnknownJobError(given=f"job {first}_{index}", allowed=allowed, todo="see `tandem queue --all`")
