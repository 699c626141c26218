"""What a check still finds, and says that it cannot, where what names the shards is damaged."""

from pathlib import Path

import pytest

from tandem.core.errors import DataError
from tandem.data.space import Space
from tandem.data.space.changing import delete
from tandem.data.space.repair import repair
from tandem.data.space.scrub import scrub
from tests.data.space.test_damage import flip, shards
from tests.data.space.test_space import made

CONTENTS = {f"{n % 7}/{n:05d}": bytes([n % 251]) * 100 for n in range(4000)}
"""So many that each table of the index takes several blocks."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "s", CONTENTS, parity=2)


def index_of(folder: Path) -> Path:
    return folder / "generations" / "00000001.index"


def place_in(folder: Path, table: str) -> int:
    """A byte of one of the index's tables."""
    with Space.open(folder) as space:
        return int(getattr(space.index.header, table).offset)


def is_told(space: Space, number: int) -> bool:
    """Whether the index still tells where a sample lies."""
    try:
        space.index.place(number)
    except DataError:
        return False
    return True


@pytest.mark.parametrize("table", ["paths", "mtimes", "records"])
def test_a_damaged_index_hides_no_other_damage(folder: Path, table: str) -> None:
    with Space.open(folder) as space:
        names = [entry.file_name for entry in space.index.shards]
        cut, gone = (folder / "shards" / names[place] for place in (0, 2))
        lost = [n for n in range(len(space)) if names[space.stat(n).shard] in (cut.name, gone.name)]
    flip(index_of(folder), 8 * place_in(folder, table))
    with Space.open(folder) as space:
        told = {n for n in lost if is_told(space, n)}
        assert told if table != "records" else told < set(lost)
    cut.write_bytes(cut.read_bytes()[:64])
    gone.unlink()
    for parity in (folder / "parity").glob("*.shard.parity"):
        parity.unlink()
    found = list(scrub(str(folder)))
    by_kind = {kind: [one for one in found if one.what == kind] for kind in {one.what for one in found}}
    assert [Path(one.file).name for one in by_kind["index"]] == [index_of(folder).name]
    assert {Path(one.file).name for one in by_kind["shard"]} == {cut.name, gone.name}
    assert {Path(one.file).name for one in by_kind["parity"]} == {f"{name}.parity" for name in names}
    assert {one.number for one in by_kind.get("sample", ())} == told
    for one in by_kind.get("sample", ()):
        known = one.path in CONTENTS
        assert known or (table == "paths" and one.path is None and "its path is damaged too" in one.message)


@pytest.mark.parametrize("what", ["current", "index"])
def test_a_space_that_cannot_be_opened_says_that_its_shards_were_not_checked(folder: Path, what: str) -> None:
    file = folder / "current" if what == "current" else index_of(folder)
    flip(file, 8 * 20)
    shards(folder)[0].unlink()
    (one,) = scrub(str(folder))
    assert (one.what, one.file) == (what, str(file) if what == "current" else str(folder))
    assert one.message.endswith("so it is not known which shards there are to be, and none was checked")


def test_an_index_restored_for_the_file_current_is_told(folder: Path) -> None:
    flip(index_of(folder), 8 * place_in(folder, "paths"))
    flip(folder / "current", 8 * 20)
    done = repair(str(folder))
    assert (done.files, done.left) == ([str(index_of(folder)), str(folder / "current")], [])


def test_bytes_behind_the_end_of_an_older_index_are_named_and_taken_off(folder: Path) -> None:
    whole = index_of(folder).read_bytes()
    with Space.open(folder):
        delete(str(folder), prefix="1/")
        with index_of(folder).open("ab") as file:
            file.write(bytes(1))
        (one,) = scrub(str(folder))
        assert (one.what, one.file) == ("older", str(index_of(folder)))
        assert one.message.endswith(
            f"is longer than it was written: {len(whole) + 1:,} bytes instead of {len(whole):,}"
        )
        done = repair(str(folder))
    assert (done.files, done.left) == ([str(index_of(folder))], [])
    assert index_of(folder).read_bytes() == whole
