"""Durations and sizes as people write them, and back.

Durations: `90s`, `5m`, `1h30m`, `2d`, and Slurm's `minutes`, `minutes:seconds`,
`hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`. Sizes: `4G`, `512M`, `1.5GiB` are powers of
1024 (as in Slurm); `4GB` is 4e9. What a bare number means is the caller's to say: minutes and MiB on
the command line as in Slurm, seconds and bytes in fields named `_s` and `_bytes`.
"""

import itertools
import math
import re
from collections.abc import Sequence

from tandem.core.errors import QuantityError

_DURATION_UNITS_S = {
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_PART = re.compile(r"([0-9]*\.?[0-9]+)\s*([a-z]+)\s*")
_SLURM = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")
_BARE = re.compile(r"[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?")
_SIZE = re.compile(r"(?P<number>[0-9]*\.?[0-9]+)\s*(?P<prefix>[kmgtp]?)(?P<tail>ib|b|)", re.IGNORECASE)
_PREFIXES = "kmgtp"

_DURATION_FORMS = "90s, 5m, 1h30m, 2d, {}1:30:00 (hours), 1-02:03:04 (days)"
_BARE_DURATIONS = {60.0: "or Slurm's 90 (minutes), ", 1.0: "90 (seconds), or Slurm's "}
_SIZE_FORMS = "a number of {}, or one with K, M, G, T (powers of 1024), KB, MB, GB, TB (powers of 1000)"
_BARE_UNITS = {1: "bytes", 10**6: "MB", 1 << 20: "MiB"}


def parse_duration(value: str | float, *, bare_unit_s: float = 60.0) -> float:
    """Read a duration.

    Args:
        value: Text such as `5m`; a number is taken as it is, in seconds.
        bare_unit_s: What a text that is only a number counts, in seconds (60: minutes, as `sbatch --time`).

    Returns:
        The duration in seconds, finite and not negative.

    Raises:
        QuantityError: The text is no duration, or it is negative or not finite.

    >>> parse_duration("1h30m"), parse_duration("1-02:03:04"), parse_duration("90")
    (5400.0, 93784.0, 5400.0)
    """
    forms = _DURATION_FORMS.format(_BARE_DURATIONS.get(bare_unit_s, "or Slurm's "))
    if isinstance(value, bool):
        raise _refused(value, "duration", forms)
    seconds: float | None
    try:
        if isinstance(value, int | float):
            seconds = float(value)
        else:
            text = value.strip().lower()
            seconds = float(text) * bare_unit_s if _BARE.fullmatch(text) else _sum_of_parts(text)
            seconds = _slurm_duration(text) if seconds is None else seconds
    except OverflowError:  # of a whole number
        seconds = math.inf
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        raise _refused(value, "duration", forms)
    return seconds


def parse_size(value: str | int, *, bare_unit_bytes: int = 1) -> int:
    """Read a size.

    Args:
        value: Text such as `4G`; a whole number is taken as it is, in bytes.
        bare_unit_bytes: What a text that is only a number counts, in bytes (1 << 20: MiB, as `sbatch --mem`).

    Returns:
        The size in bytes, not negative.

    Raises:
        QuantityError: The text is no size, or the size is negative or not a whole number of bytes.

    >>> parse_size("4G"), parse_size("1.5KiB"), parse_size("2MB"), parse_size("8", bare_unit_bytes=1 << 20)
    (4294967296, 1536, 2000000, 8388608)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        unit_said = _BARE_UNITS.get(bare_unit_bytes) or human_size(bare_unit_bytes)
        raise _refused(value, "size", _SIZE_FORMS.format(unit_said))
    prefix, tail = match["prefix"].lower(), match["tail"].lower()
    if prefix:
        step = 1000 if tail == "b" else 1024
        unit: int = step ** (_PREFIXES.index(prefix) + 1)
    else:
        unit = 1 if tail else bare_unit_bytes
    return int(match["number"]) * unit if match["number"].isdigit() else round(float(match["number"]) * unit)


def human_duration(seconds: float) -> str:
    """Write a duration with at most two units, readable by `parse_duration`.

    >>> human_duration(0.25), human_duration(42.04), human_duration(5400), human_duration(93784)
    ('250ms', '42s', '1h30m', '1d2h')
    """
    if not math.isfinite(seconds):
        return "forever" if seconds > 0 else "unknown"
    if seconds < 0:
        return f"-{human_duration(-seconds)}"
    if round(seconds * 1000) < 1000:
        return f"{round(seconds * 1000)}ms" if seconds else "0s"
    if seconds < 9.95:
        return f"{seconds:.1f}s".replace(".0s", "s")
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for (large, large_s), (small, small_s) in itertools.pairwise(units):
        count, rest = divmod(round(seconds / small_s), large_s // small_s)
        if count:
            return f"{count}{large}{rest}{small}" if rest else f"{count}{large}"
    return f"{round(seconds)}s"


def human_size(size_bytes: float) -> str:
    """Write a size in powers of 1024, readable by `parse_size`.

    >>> human_size(512), human_size(4 << 30), human_size(1536)
    ('512B', '4GiB', '1.5KiB')
    """
    if size_bytes < 0:
        return f"-{human_size(-size_bytes)}"
    value, unit = float(size_bytes), "B"
    for prefix in _PREFIXES.upper():
        if value < 1023.95:
            break
        value, unit = value / 1024, f"{prefix}iB"
    return f"{value:.1f}{unit}".replace(f".0{unit}", unit)


def counted(number: int, what: str) -> str:
    """Write a number with its noun.

    >>> counted(1, "job"), counted(0, "run time"), counted(1200, "GPU")
    ('1 job', '0 run times', '1,200 GPUs')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def ranges(numbers: Sequence[int]) -> str:
    """Write numbers as ranges.

    >>> ranges([5, 0, 1, 2])
    '0-2,5'
    """
    written: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if written and number == written[-1][1] + 1:
            written[-1] = (written[-1][0], number)
        else:
            written.append((number, number))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in written)


def _sum_of_parts(text: str) -> float | None:
    """Return the seconds of `1h30m`, or None where the text is not made of such parts."""
    if not re.fullmatch(rf"(?:{_PART.pattern})+", text):
        return None
    parts = _PART.findall(text)
    if any(unit not in _DURATION_UNITS_S for _, unit in parts):
        return None
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)


def _slurm_duration(text: str) -> float | None:
    """Return the seconds of a Slurm time with colons or days, or None where it is not one."""
    match = _SLURM.fullmatch(text)
    if match is None:
        return None
    numbers = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return float(int(match["days"]) * 86400 + hours * 3600 + minutes * 60 + seconds)
    hours, minutes, seconds = (0, *numbers) if len(numbers) == 2 else numbers
    return float(hours * 3600 + minutes * 60 + seconds)


def _refused(value: object, what: str, forms: str) -> QuantityError:
    return QuantityError(given=f"{what} {value!r}", allowed=forms, todo="give a number with a unit")
