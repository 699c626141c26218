"""What is added to a space: no path may be a file and the folder of another."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import SpaceError
from tandem.data.space import Space
from tandem.data.space.changing import delete
from tandem.data.space.columns import Columns, refuse_files_above_files
from tandem.data.space.writer import SpaceWriter
from tests.data.space.test_space import as_once_written

NAMES = st.text(st.sampled_from("ab!0"), min_size=1, max_size=2)
PATHS = st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join).map(str.encode), max_size=6)


@given(present=PATHS, added=PATHS)
def test_what_is_added_never_lies_above_or_below_another(present: set[bytes], added: set[bytes]) -> None:
    every = present | added
    wrong = {(one, other) for one in every for other in every if other.startswith(one + b"/") if {one, other} & added}
    named = {
        f"two samples, {a.decode()!r} and {b.decode()!r}, of which one would lie below the other" for a, b in wrong
    }
    with pytest.raises(SpaceError) if wrong else nullcontext() as caught:
        refuse_files_above_files(Columns(paths=sorted(present)), Columns(paths=sorted(added)))
    assert caught is None or caught.value.given in named


def test_a_file_below_another_is_refused_by_name_and_an_older_space_can_still_be_changed(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "new") as writer:
        for path in ("a", "a-b", "a/b"):
            writer.add(path, b"1")
        with pytest.raises(SpaceError, match=r"two samples, 'a' and 'a/b', of which one would lie below the other"):
            writer.commit()
    old = as_once_written(tmp_path / "old", {"a": b"1", "a/b": b"2", "c": b"3"})
    with SpaceWriter(old) as writer:
        writer.add("d", b"4")
        writer.commit()
    with SpaceWriter(old) as writer:
        writer.add("c/d", b"5")
        with pytest.raises(SpaceError, match="'c' and 'c/d'"):
            writer.commit()
    delete(str(old), ["a"])
    with Space.open(old) as space:
        assert [space.path(number) for number in space.under()] == ["a/b", "c", "d"]
