"""Settings as they are given on command lines: KEY=VALUE, and values that are numbers."""

import math
from collections.abc import Iterable

from tandem.core.errors import ConfigError


def parse_pair(text: str, of: str, example: str) -> tuple[str, str]:
    """Take KEY=VALUE apart at its first equals sign.

    Args:
        text: What was given.
        of: The option that it was given for.
        example: A right one.

    Raises:
        ConfigError: There is no equals sign, or no key before it.

    >>> parse_pair("a=b=c", "--set", "a=1")
    ('a', 'b=c')
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(given=f"{of} {text!r}", allowed="KEY=VALUE", todo=f"give both, as in {of} {example}")
    return key, value


def parse_numbers(texts: Iterable[str], of: str, example: str) -> dict[str, float]:
    """Read pairs whose values are finite numbers; the arguments are as for `parse_pair`.

    Raises:
        ConfigError: One is no pair, or its value no finite number.

    >>> parse_numbers(["a=2", "b=1e3"], "--set", "a=1")
    {'a': 2.0, 'b': 1000.0}
    """
    numbers = {}
    for key, value in (parse_pair(text, of, example) for text in texts):
        try:
            numbers[key] = float(value)
        except ValueError:
            numbers[key] = math.nan
        if not math.isfinite(numbers[key]):
            raise ConfigError(given=f"{of} {key}={value}", allowed="a number", todo=f"as in {of} {example}")
    return numbers
