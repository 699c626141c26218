"""`tandem://`: files of a space through fsspec, found by its entry point."""

import csv
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tandem.core.errors import DataError, SpaceError
from tandem.data.files import SpaceFileSystem
from tandem.data.pack.packing import pack
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter
from tests.data.space.test_space import as_once_written

FILES = {
    "2024/jan.csv": b"a,b\n1,2\n",
    "2024/q1/feb.csv": b"",
    "2024/q1/mar.csv": b"x" * 5000,
    "2024!": b"sorts before the folder",
    "readme": b"hello",
}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    with SpaceWriter(tmp_path / "t.space") as writer:
        for path, data in FILES.items():
            writer.add(path, data, mtime_ns=1_600_000_000 * 10**9, mode=0o100640)
        writer.commit()
    return tmp_path / "t.space"


def test_fsspec_finds_it_by_its_protocol(space: Path) -> None:
    with fsspec.open(f"tandem://{space}/2024/jan.csv", "rt") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["1", "2"]]
    with fsspec.open(f"tandem://2024/q1/mar.csv::file://{space}") as file:
        assert file.read() == FILES["2024/q1/mar.csv"]


READ = """
import sys
import datasets
import pandas as pd
url, cache = sys.argv[1:]
assert pd.read_csv(url).to_dict("list") == {"a": [1], "b": [2]}
rows = datasets.load_dataset("csv", data_files=url, split="train", cache_dir=cache)
assert list(rows) == [{"a": 1, "b": 2}]
"""


@pytest.mark.slow
def test_pandas_and_hugging_face_datasets_open_it(space: Path, tmp_path: Path) -> None:
    """In a process of its own: one that was told that there is no network lets datasets read local paths alone."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-c", READ, f"tandem://{space}/2024/jan.csv", str(tmp_path / "cache")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["tandem://{space}/{path}", "tandem://{path}::file://{space}"])
def test_xarray_opens_netcdf_and_zarr(where: str, tmp_path: Path) -> None:
    import xarray  # half a second, which other tests here do without

    grid = xarray.Dataset({"t2m": (("time", "x"), np.arange(12.0).reshape(3, 4))}, {"time": [0, 6, 12]})
    (tmp_path / "source" / "2024").mkdir(parents=True)
    grid.to_netcdf(tmp_path / "source" / "2024" / "a.nc", engine="scipy")
    grid.to_zarr(tmp_path / "source" / "2024" / "b.zarr", consolidated=False)
    space = tmp_path / "t.space"
    pack(str(tmp_path / "source"), str(space), workers=1, tell=lambda _done, _of: None)
    with fsspec.open(where.format(space=space, path="2024/a.nc")) as file, xarray.open_dataset(file) as opened:
        xarray.testing.assert_identical(opened.load(), grid)
    with xarray.open_zarr(where.format(space=space, path="2024/b.zarr"), consolidated=False) as opened:
        xarray.testing.assert_identical(opened.load(), grid)


def test_files_and_folders(space: Path) -> None:
    files, root = fsspec.url_to_fs(f"tandem://{space}")
    assert files.ls(root, detail=False) == [f"{space}/{name}" for name in ("2024!", "2024", "readme")]
    assert files.ls(f"{root}/2024/q1", detail=False) == [f"{space}/2024/q1/feb.csv", f"{space}/2024/q1/mar.csv"]
    assert sorted(files.find(root)) == sorted(f"{space}/{path}" for path in FILES)
    assert files.glob(f"{root}/2024/*.csv") == [f"{space}/2024/jan.csv"]
    assert files.isdir(f"{root}/2024")
    assert files.isfile(f"{root}/2024/jan.csv")
    assert not files.exists(f"{root}/2024/q2")
    info = files.info(f"{root}/readme")
    assert (info["size"], info["type"], info["mtime"], info["mode"]) == (5, "file", 1.6e9, 0o100640)
    assert files.modified(f"{root}/readme") == datetime.fromtimestamp(1.6e9, UTC)
    assert files.cat(root, recursive=True, on_error="omit") == {f"{space}/{path}": data for path, data in FILES.items()}
    assert files.cat_file(f"{root}/readme", 1, 3) == b"el"


def test_files_that_lie_below_a_file_in_older_spaces_are_listed_with_it(tmp_path: Path) -> None:
    as_once_written(tmp_path / "s", dict.fromkeys(("a", "a/b", "c"), b"x"))
    files = fsspec.filesystem("tandem", fo=str(tmp_path / "s"))
    assert files.ls("", detail=False) == ["a", "a", "c"]
    assert files.ls("a", detail=False) == ["a", "a/b"]
    assert files.find("") == ["a", "a/b", "c"]


def test_chained_names_are_those_in_the_space(space: Path) -> None:
    files = SpaceFileSystem(str(space))
    assert sorted(files.find("")) == sorted(FILES)
    assert files.ls("2024/jan.csv", detail=False) == ["2024/jan.csv"]


@pytest.mark.parametrize("path", ["no", "2024/ja", "2024/jan.csv/x"])
def test_what_is_not_there_is_file_not_found(space: Path, path: str) -> None:
    files = SpaceFileSystem(str(space))
    for ask in (files.ls, files.info, files.cat_file, files.open, files.modified):
        with pytest.raises(FileNotFoundError, match=path):
            ask(path)


def test_no_space_on_the_way_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no part of the path is a space"):
        SpaceFileSystem().info(f"{tmp_path}/x/y")


def test_it_writes_nothing(space: Path) -> None:
    files = SpaceFileSystem(str(space))
    for change in (
        lambda: files.open("new", "wb"),
        lambda: files.touch("new"),
        lambda: files.rm("readme"),
        lambda: files.rm("2024", recursive=True),
        lambda: files.mv("readme", "new"),
        lambda: files.cp("readme", "new"),
        lambda: files.mkdir("new"),
        lambda: files.makedirs("new/new"),
        lambda: files.rmdir("2024"),
    ):
        with pytest.raises(OSError, match="Read-only"):
            change()


def test_a_folder_is_no_file_and_has_the_time_of_its_generation(space: Path) -> None:
    files = SpaceFileSystem(str(space))
    for ask in (files.open, files.cat_file):
        with pytest.raises(IsADirectoryError, match="2024"):
            ask("2024")
    with Space.open(space) as opened:
        created_s = opened.index.header.created_ns / 1e9
    assert files.modified("2024") == files.created("2024") == datetime.fromtimestamp(created_s, UTC)
    assert files.created("readme") == files.modified("readme")


def test_a_space_at_a_url_is_read(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DATA_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(space), "/files-of-a-test.space", recursive=True)
    try:
        with fsspec.open("tandem://2024/q1/mar.csv::memory://files-of-a-test.space") as file:
            assert file.read() == FILES["2024/q1/mar.csv"]
        with pytest.raises(SpaceError, match="is not a space: it has no file `current`"):
            fsspec.open("tandem://a::memory://nothing.space").open()
    finally:
        memory.rm("/files-of-a-test.space", recursive=True)


def test_damage_raises_and_gives_no_bytes(space: Path) -> None:
    (shard,) = (space / "shards").iterdir()
    data = bytearray(shard.read_bytes())
    data[-2] ^= 16
    shard.write_bytes(data)
    with pytest.raises(DataError, match="'readme'"), fsspec.open(f"tandem://{space}/readme") as file:
        file.read()
