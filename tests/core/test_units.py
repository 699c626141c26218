import doctest
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tandem.core import units
from tandem.core.errors import QuantityError
from tandem.core.units import human_duration, human_size, parse_duration, parse_size


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(units)
    assert results.failed == 0
    assert results.attempted >= 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1w", 604800),
        ("90", 5400),
        ("1.5", 90),
        ("1:30", 90),
        ("1:30:00", 5400),
        ("1-0", 86400),
        ("1-02", 93600),
        ("1-02:03", 93780),
        ("1-02:03:04", 93784),
        (" 2H ", 7200),
        (12.5, 12.5),
        (0, 0),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


def test_what_a_bare_number_means_is_the_callers_to_say() -> None:
    assert parse_duration("90", bare_unit_s=1) == 90
    assert parse_size("512", bare_unit_bytes=1 << 20) == 512 << 20
    assert parse_size("512B", bare_unit_bytes=1 << 20) == 512


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "5x",
        "1:2:3:4",
        "-5m",
        "1-",
        "m5",
        "5m3",
        "1e999",
        "9" * 400,
        10**400,
        "9" * 400 + ":00",
        math.nan,
        math.inf,
        -1,
        True,
    ],
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(QuantityError, match="1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 << 30),
        ("4g", 4 << 30),
        ("4 GiB", 4 << 30),
        ("4GB", 4_000_000_000),
        ("1.5K", 1536),
        ("7", 7),
        (7, 7),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


def test_an_error_says_what_a_number_alone_counts() -> None:
    for unit_bytes, said in ((1, "bytes"), (1 << 20, "MiB"), (10**6, "MB"), (1 << 10, "1KiB")):
        with pytest.raises(QuantityError, match=f"allowed: a number of {said}, or one with K"):
            parse_size("many", bare_unit_bytes=unit_bytes)
    for unit_s, said in ((60.0, r"Slurm's 90 \(minutes\)"), (1.0, r"90 \(seconds\)")):
        with pytest.raises(QuantityError, match=said):
            parse_duration("long", bare_unit_s=unit_s)


@pytest.mark.parametrize("text", ["", "G", "4X", "-4G", "4GG", "1e3", -1, 1.5, True, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(QuantityError, match="powers of 1024"):
        parse_size(text)  # type: ignore[arg-type]


@given(st.floats(0, 1e9))
@example(59.96)
@example(9.96)
@example(0.9996)
@example(3599.6)
def test_a_written_duration_reads_back_nearly(seconds: float) -> None:
    assert parse_duration(human_duration(seconds)) == pytest.approx(seconds, rel=0.06, abs=0.0006)


@given(st.integers(0, 1 << 60))
@example((1 << 20) - 1)
def test_a_written_size_reads_back_nearly(size: int) -> None:
    assert parse_size(human_size(size)) == pytest.approx(size, rel=0.06)


@given(st.integers(0, 1 << 80))
def test_whole_sizes_are_exact(size: int) -> None:
    assert parse_size(f"{size}") == size
    assert parse_size(f"{size}K") == size * 1024


def test_what_has_no_end_is_written_in_words() -> None:
    assert human_duration(math.inf) == "forever"
    assert human_duration(math.nan) == "unknown"
    assert human_duration(-5) == "-5s"
