"""The slow metadata server of the benchmarks shows what lies behind it, late; and a space is read through it."""

import time
from pathlib import Path

import pytest

from benchmarks import slow_metadata
from tandem.core.errors import DataError
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter
from tests.conftest import requires
from tests.data.space.test_pieces import flip

pytestmark = [requires("fuse", "libfuse"), pytest.mark.slow]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slow_metadata.compiled(tmp_path_factory.mktemp("program"))


def test_files_are_as_they_are_and_each_lookup_and_open_is_late(program: Path, tmp_path: Path) -> None:
    source, seen = tmp_path / "source", tmp_path / "seen"
    (source / "d").mkdir(parents=True)
    for number in range(20):
        (source / "d" / f"{number}").write_bytes(bytes([number]) * 300_000 * (number % 3))
    with slow_metadata.mounted(program, source, seen, delay_ms=2) as told:
        begun_s = time.perf_counter()
        for number in range(20):
            assert (seen / "d" / f"{number}").read_bytes() == (source / "d" / f"{number}").read_bytes()
            assert (seen / "d" / f"{number}").stat().st_mtime_ns == (source / "d" / f"{number}").stat().st_mtime_ns
        passed_s = time.perf_counter() - begun_s
        assert not (seen / "d" / "20").exists()
        with pytest.raises(OSError, match="Read-only"):
            (seen / "new").write_bytes(b"")
    requests, each_ms = told
    assert (
        1 + 1 + 2 * 20 + 1 <= requests <= 1 + 1 + 2 * 20 + 3
    )  # the root's status, `d`, lookups and opens, what is not there
    assert each_ms >= 2
    assert passed_s >= 0.002 * (1 + 2 * 20)


def test_a_space_is_read_through_it_whatever_is_cached(program: Path, tmp_path: Path) -> None:
    contents = [bytes([number % 251]) * (number * 37) for number in range(400)]
    with SpaceWriter(tmp_path / "source" / "s") as writer:
        for number, data in enumerate(contents):
            writer.add(f"{number:03d}", data)
        writer.commit()
    for _ in range(2):
        with (
            slow_metadata.mounted(program, tmp_path / "source", tmp_path / "seen", delay_ms=0),
            Space.open(tmp_path / "seen" / "s") as space,
        ):
            for _ in range(2):  # what is not cached, and what is
                assert list(map(bytes, space.read_batch(range(400)))) == contents
                assert space.read(399) == contents[399]
    flip(tmp_path / "source" / "s", 7, 3)
    with (
        slow_metadata.mounted(program, tmp_path / "source", tmp_path / "seen", delay_ms=0),
        Space.open(tmp_path / "seen" / "s") as space,
        pytest.raises(DataError, match="sample 7, '007'"),
    ):
        space.read_batch(range(400))
