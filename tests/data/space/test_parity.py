"""Parity against plain arithmetic in GF(256), and what it restores."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.core.errors import DataError, TandemError
from tandem.data.pack.fetching import fetch_from
from tandem.data.pack.packing import pack
from tandem.data.space import Space, layout, parity
from tandem.data.space.changing import compact, delete
from tandem.data.space.exporting import export
from tandem.data.space.repair import repair
from tandem.data.space.scrub import scrub
from tandem.data.space.writer import SpaceWriter
from tests.data.space.test_space import CONTENTS


def product(a: int, b: int) -> int:
    """In GF(256), polynomial 0x11d, bit by bit."""
    result = 0
    while b:
        if b & 1:
            result ^= a
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return result


def inverse(a: int) -> int:
    return next(b for b in range(1, 256) if product(a, b) == 1)


def test_it_is_the_sum_that_the_format_describes(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(2500)
    (tmp_path / "f").write_bytes(data)
    parity.protect(tmp_path / "f", tmp_path / "p", 3)
    packed = (tmp_path / "p").read_bytes()
    block, rows = int.from_bytes(packed[24:28], "little"), int.from_bytes(packed[32:40], "little")
    padded = data.ljust(28 * rows * block, b"\0")
    stored = packed[64 + 8 * rows * 31 :]
    assert len(stored) == 3 * rows * block
    for j in range(3):
        factors = [inverse((28 + j) ^ c) for c in range(28)]
        for at in range(rows * block):
            wanted = 0
            for c in range(28):
                wanted ^= product(padded[c * rows * block + at], factors[c])
            assert stored[j * rows * block + at] == wanted


@settings(max_examples=25)
@given(size=st.integers(0, 60_000), count=st.integers(1, 4), seed=st.integers(0, 1000), draw=st.data())
def test_what_is_damaged_within_its_reach_comes_back_and_what_is_not_is_refused(
    tmp_path_factory: pytest.TempPathFactory, size: int, count: int, seed: int, draw: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("parity")
    file, guard = folder / "f", folder / "p"
    whole = random.Random(seed).randbytes(size)
    file.write_bytes(whole)
    parity.protect(file, guard, count)
    block = int.from_bytes(guard.read_bytes()[24:28], "little")
    rows = int.from_bytes(guard.read_bytes()[32:40], "little")
    used = [c for c in range(28) if c * rows * block < size]
    columns = draw.draw(st.lists(st.sampled_from(used), unique=True, max_size=6)) if used else []
    damaged = bytearray(whole)
    for column in columns:
        damaged[column * rows * block] ^= 1 + seed % 255  # all in row 0
    file.write_bytes(damaged)
    if len(columns) <= count:
        assert parity.restore(file, guard) == len(columns)
        assert file.read_bytes() == whole
    else:
        with pytest.raises(DataError, match="more is damaged than its parity can restore"):
            parity.restore(file, guard)
        assert file.read_bytes() == damaged


def test_a_truncated_file_comes_back_while_little_is_missing(tmp_path: Path) -> None:
    whole = os.urandom(1_000_000)
    (tmp_path / "f").write_bytes(whole)
    parity.protect(tmp_path / "f", tmp_path / "p", 2)
    os.truncate(tmp_path / "f", 940_000)
    parity.restore(tmp_path / "f", tmp_path / "p")
    assert (tmp_path / "f").read_bytes() == whole
    os.truncate(tmp_path / "f", 800_000)
    with pytest.raises(DataError, match="more is damaged"):
        parity.restore(tmp_path / "f", tmp_path / "p")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with SpaceWriter(tmp_path / "s", shard_bytes=100_000) as writer:
        for path, data in CONTENTS.items():
            writer.add(path, data)
        writer.commit(parity=2)
    return tmp_path / "s"


def contents(folder: Path) -> dict[str, bytes]:
    with Space.open(folder) as space:
        return {space.path(n): space.read(n) for n in range(len(space))}


@pytest.mark.slow
def test_one_flipped_bit_in_any_region_of_any_file_is_repaired(folder: Path) -> None:
    rng = random.Random(4)
    guarded = [folder / "current", *(folder / "shards").iterdir(), *(folder / "generations").iterdir()]
    for path in guarded:
        whole = path.read_bytes()
        for place in {0, 8, 20, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(12))}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            done = repair(str(folder))
            assert (done.files, done.left) == ([str(path)], []), place
            assert path.read_bytes() == whole
    assert contents(folder) == CONTENTS


def test_bits_flipped_in_an_older_index_or_its_parity_are_named_and_repaired(folder: Path) -> None:
    delete(str(folder), prefix="d3/")
    rng = random.Random(6)
    index = folder / "generations" / "00000001.index"
    for path in (index, folder / "parity" / f"{index.name}.parity"):
        whole = path.read_bytes()
        for place in (0, 8, 20, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(6))):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            assert {one.file for one in scrub(str(folder))} == {str(path)}
            assert repair(str(folder)) == ([str(path)], 0, [])
            assert path.read_bytes() == whole


def test_every_change_keeps_the_parity_of_what_is_there(folder: Path) -> None:
    delete(str(folder), prefix="d3/")
    compact(str(folder))
    files = [*(folder / "shards").iterdir(), *(folder / "generations").iterdir()]
    assert {path.name for path in (folder / "parity").iterdir()} == {f"{path.name}.parity" for path in files}
    left = {path: data for path, data in CONTENTS.items() if not path.startswith("d3/")}
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert repair(str(folder)).left == []
    assert contents(folder) == left


def test_what_is_whole_is_not_touched(folder: Path) -> None:
    before = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert repair(str(folder)) == ([], 0, [])
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before


def test_current_is_made_anew_when_it_is_gone(folder: Path) -> None:
    (folder / "current").unlink()
    assert repair(str(folder)).files == [str(folder / "current")]
    assert contents(folder) == CONTENTS


def test_what_parity_does_not_cover_comes_from_the_source(folder: Path, tmp_path: Path) -> None:
    with Space.open(folder) as space:
        export(space, str(tmp_path / "source"))
    gone, cut, *_ = sorted((folder / "shards").iterdir())
    gone.unlink()
    os.truncate(cut, 200)
    (tmp_path / "source" / "d1" / "file001.bin").write_bytes(b"changed since")
    done = repair(str(folder), fetch_from(str(tmp_path / "source")))
    lost = {one.path for one in done.left if one.what == "sample"}
    assert lost <= {"d1/file001.bin"}
    assert done.samples > 20
    with Space.open(folder) as space:
        for path, data in CONTENTS.items():
            if path in lost:
                with pytest.raises(TandemError):
                    space.read(space.number(path))
            else:
                assert space.read(space.number(path)) == data
        assert [space.path(n) for n in range(len(space))] == list(CONTENTS)


def test_without_parity_and_source_what_is_damaged_is_left_and_told(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "s") as writer:
        writer.add("a", b"x" * 100)
        writer.commit()
    (shard,) = (tmp_path / "s" / "shards").iterdir()
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    done = repair(str(tmp_path / "s"))
    assert (done.files, done.samples) == ([], 0)
    assert [one.path for one in done.left] == ["a"]


def test_packing_with_parity(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_bytes(os.urandom(300_000))
    pack(str(tmp_path / "in"), str(tmp_path / "s"), workers=1, parity=1, tell=lambda done, of: None)
    held = sum(path.stat().st_size for path in (tmp_path / "s" / "parity").iterdir())
    assert held < 300_000 / 28 * 1.1
    (shard,) = (tmp_path / "s" / "shards").iterdir()
    with shard.open("r+b") as file:
        file.seek(1000)
        file.write(bytes(5000))
    assert [one.path for one in scrub(str(tmp_path / "s")) if one.what == "sample"] == ["f"]
    assert repair(str(tmp_path / "s")).left == []
    assert contents(tmp_path / "s") == {"f": (tmp_path / "in" / "f").read_bytes()}


def test_a_missing_file_comes_back_where_it_was_no_larger_than_its_parity_covers(tmp_path: Path) -> None:
    for size, back in ((0, True), (128, True), (129, False)):  # two blocks of 64
        whole = (b"nowhere a zero " * size)[:size]
        (tmp_path / "f").write_bytes(whole)
        parity.protect(tmp_path / "f", tmp_path / "p", 2)
        (tmp_path / "f").unlink()
        if back:
            parity.restore(tmp_path / "f", tmp_path / "p")
            assert (tmp_path / "f").read_bytes() == whole
        else:
            with pytest.raises(DataError, match="more is damaged than its parity can restore"):
                parity.restore(tmp_path / "f", tmp_path / "p")
            assert not (tmp_path / "f").exists()


def test_repair_restores_a_missing_shard_where_parity_covers_it_and_names_it_where_not(tmp_path: Path) -> None:
    space = tmp_path / "s"
    for path, data in (("small", b"s" * 100), ("large", os.urandom(9000))):
        with SpaceWriter(space) as writer:
            writer.add(path, data)
            writer.commit(parity=4)
    with Space.open(space) as opened:
        small, large = (space / "shards" / entry.file_name for entry in opened.index.shards)
    whole = small.read_bytes()
    small.unlink()
    large.unlink()
    done = repair(str(space))
    assert done.files == [str(small)]
    assert small.read_bytes() == whole
    assert {one.file for one in done.left} == {str(large)}


def test_appending_with_parity_guards_what_was_there_before_but_not_what_is_damaged(tmp_path: Path) -> None:
    space, parts = tmp_path / "s", [tmp_path / name for name in ("one", "two", "three")]
    for part in parts:
        part.mkdir()
        (part / part.name).write_bytes(os.urandom(40_000))
    for number, part in enumerate(parts):
        if number == 2:  # the first shard is damaged before parity is asked for
            with Space.open(space) as opened:
                damaged, *_ = (space / "shards" / entry.file_name for entry in opened.index.shards)
            flip(damaged)
        level = 2 if number == 2 else 0
        pack(str(part), str(space), append=number > 0, workers=1, parity=level, tell=lambda done, of: None)
    with Space.open(space) as opened:
        files = [space / "shards" / entry.file_name for entry in opened.index.shards] + [Path(opened.index.name)]
    guarded = {path.name for path in (space / "parity").glob("*.parity")}
    assert guarded == {f"{path.name}.parity" for path in files if path != damaged}
    flip(damaged)
    before = {path: path.read_bytes() for path in files}
    for path in files[1:]:
        flip(path)
    assert repair(str(space)).left == []
    assert {path: path.read_bytes() for path in files} == before


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def version_flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8] ^= 4
    path.write_bytes(data)


HARMS = (flip, cut, zero, version_flipped, Path.unlink)


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [(pattern, harm) for pattern in ("*.shard.parity", "*.index.parity") for harm in HARMS],
)
def test_damaged_parity_is_named_and_made_again(folder: Path, pattern: str, harm: Callable[[Path], None]) -> None:
    path = sorted((folder / "parity").glob(pattern))[0]
    whole = path.read_bytes()
    harm(path)
    assert [(one.what, one.file) for one in scrub(str(folder))] == [("parity", str(path))]
    done = repair(str(folder))
    assert (done.files, done.left) == ([str(path)], [])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("pattern", ["current", "generations/*", "shards/*", "parity/*.parity"])
def test_a_byte_behind_the_end_of_any_file_is_named_and_taken_away(folder: Path, pattern: str) -> None:
    path = sorted(folder.glob(pattern))[0]
    whole = path.read_bytes()
    path.write_bytes(whole + b"0")
    assert any(str(path) in one.message for one in scrub(str(folder)))
    done = repair(str(folder))
    assert (done.files, done.left) == ([str(path)], [])
    assert path.read_bytes() == whole


def test_parity_that_is_gone_as_a_whole_is_named_and_made_again(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "parity").iterdir()}
    shutil.rmtree(folder / "parity")
    assert {one.file for one in scrub(str(folder))} == {str(path) for path in before}
    assert repair(str(folder)).left == []
    assert {path: path.read_bytes() for path in (folder / "parity").iterdir()} == before


@pytest.mark.parametrize("harm", [zero, version_flipped])
def test_where_parity_is_of_no_use_samples_come_from_the_source(
    folder: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    with Space.open(folder) as space:
        export(space, str(tmp_path / "source"))
        shard = folder / "shards" / space.index.shards[0].file_name
    flip(shard)
    harm(folder / "parity" / f"{shard.name}.parity")
    assert {one.what for one in repair(str(folder)).left} >= {"parity", "sample"}
    done = repair(str(folder), fetch_from(str(tmp_path / "source")))
    assert (done.samples, done.left) == (1, [])
    assert contents(folder) == CONTENTS


def unnamed(path: Path) -> None:
    """As parity was written before it named its file."""
    data = path.read_bytes()
    path.write_bytes(layout.sealed(data[:48] + bytes(8)) + data[64:])


def two_shards(space: Path) -> list[Path]:
    """Of one size, so small that parity alone makes them."""
    for path in ("one", "two"):
        with SpaceWriter(space) as writer:
            writer.add(path, path.encode() * 20)
            writer.commit(parity=4)
    with Space.open(space) as opened:
        return [space / "shards" / entry.file_name for entry in opened.index.shards]


def swap(one: Path, two: Path) -> None:
    aside = one.rename(one.with_suffix(".swap"))
    two.rename(one)
    aside.rename(two)


def test_parity_of_another_file_is_named_and_made_again(tmp_path: Path) -> None:
    one, two = (tmp_path / "s" / "parity" / f"{shard.name}.parity" for shard in two_shards(tmp_path / "s"))
    before = one.read_bytes(), two.read_bytes()
    swap(one, two)
    told = {found.file: found.message for found in scrub(str(tmp_path / "s"))}
    assert told == {str(path): f"{path} is the parity of another file" for path in (one, two)}
    assert repair(str(tmp_path / "s")) == ([str(one), str(two)], 0, [])
    assert (one.read_bytes(), two.read_bytes()) == before


@pytest.mark.parametrize("old", [False, True])
def test_what_parity_of_another_file_would_make_is_not_written(tmp_path: Path, old: bool) -> None:
    one, two = two_shards(tmp_path / "s")
    parities = [tmp_path / "s" / "parity" / f"{shard.name}.parity" for shard in (one, two)]
    if old:
        for path in parities:
            unnamed(path)
    swap(*parities)
    one.write_bytes(one.read_bytes()[:-1] + b"!")
    damaged = one.read_bytes()
    done = repair(str(tmp_path / "s"))
    assert one.read_bytes() == damaged
    assert str(one) in {found.file for found in done.left}
    assert str(one) not in done.files


def test_parity_that_does_not_name_its_file_restores_it(tmp_path: Path) -> None:
    one, two = two_shards(tmp_path / "s")
    index = max((tmp_path / "s" / "generations").iterdir())
    before = {path: path.read_bytes() for path in (one, two, index)}
    for path in before:
        unnamed(tmp_path / "s" / "parity" / f"{path.name}.parity")
    assert list(scrub(str(tmp_path / "s"))) == []
    for path in before:
        flip(path)
    assert set(repair(str(tmp_path / "s")).files) == {str(path) for path in before}
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("lost", [False, True])
def test_the_index_of_another_space_is_not_made_of_its_parity(tmp_path: Path, lost: bool) -> None:
    for name in ("s", "other"):
        two_shards(tmp_path / name)
    index = max((tmp_path / "s" / "generations").iterdir())
    theirs = tmp_path / "other" / "parity" / f"{index.name}.parity"
    (tmp_path / "s" / "parity" / theirs.name).write_bytes(theirs.read_bytes())
    assert [one.message for one in scrub(str(tmp_path / "s"))] == [
        f"{tmp_path / 's' / 'parity' / theirs.name} is the parity of another file"
    ]
    # so much like theirs that their parity makes theirs of it
    index.write_bytes(b"damaged" + (tmp_path / "other" / "generations" / index.name).read_bytes()[7:])
    damaged = index.read_bytes()
    if lost:
        (tmp_path / "s" / "current").unlink()
        with pytest.raises(DataError, match="its header is damaged"):
            repair(str(tmp_path / "s"))
    else:
        assert [one.what for one in repair(str(tmp_path / "s")).left] == ["index"]
    assert index.read_bytes() == damaged


FOLDERS = ("shards/*.shard", "parity/*.shard.parity", "parity/*.index.parity")


@pytest.mark.parametrize("pattern", FOLDERS)
def test_a_folder_in_the_place_of_a_file_is_named_and_the_rest_is_repaired(tmp_path: Path, pattern: str) -> None:
    one = min(two_shards(tmp_path / "s"))
    place = max((tmp_path / "s").glob(pattern))
    place.unlink()
    (place / "something").mkdir(parents=True)
    before = one.read_bytes()
    flip(one)
    done = repair(str(tmp_path / "s"))
    assert one.read_bytes() == before
    assert str(one) in done.files
    assert {found.file for found in done.left} == {str(place)}
    assert (place / "something").is_dir()
    assert str(place) in done.left[0].message


def test_folders_among_files_that_nothing_needs_stay_when_it_is_compacted(folder: Path) -> None:
    strangers = [folder / "shards" / "other.shard", folder / "parity" / "other.parity"]
    for stranger in strangers:
        stranger.mkdir()
    delete(str(folder), prefix="d3/")
    assert compact(str(folder)).freed_bytes > 0
    assert all(stranger.is_dir() for stranger in strangers)
