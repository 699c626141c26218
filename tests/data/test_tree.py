"""Folders of a space are those that its paths make, against the plain way of finding them."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tandem.data.space import Space
from tandem.data.tree import entries, is_folder
from tests.data.space.test_space import as_once_written

NAMES = st.text(st.sampled_from("ab!/.\nü0"), min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES.filter(lambda name: "/" not in name), min_size=1, max_size=4).map("/".join)


@given(st.sets(PATHS, min_size=1, max_size=12))
def test_every_folder_has_what_its_paths_say(paths: set[str]) -> None:
    folders = {"/".join(path.split("/")[:end]) for path in paths for end in range(path.count("/") + 1)}
    contents = {path: path.encode() for path in paths}
    with (
        tempfile.TemporaryDirectory() as scratch,
        Space.open(as_once_written(Path(scratch) / "s", contents)) as space,
    ):
        for folder in folders | paths | {"no such"}:
            below = [path.removeprefix(f"{folder}/" if folder else "") for path in paths]
            inside = [rest for rest, path in zip(below, paths, strict=True) if not folder or rest != path]
            found = list(entries(space.index, folder))
            assert len(found) == len(set(found))
            assert {name for name, number in found if number is None} == {
                rest.partition("/")[0] for rest in inside if "/" in rest
            }
            assert {space.path(number) for _, number in found if number is not None} == {
                f"{folder}/{rest}" if folder else rest for rest in inside if "/" not in rest
            }
            assert is_folder(space.index, folder) == (folder in folders)
