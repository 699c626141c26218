"""Files of sparse weights: what comes back, and every way in which a file can be wrong."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tandem.kernels.sparse import files
from tandem.kernels.sparse.format import pack, unpack
from tandem.kernels.sparse.mistakes import SparseFormatError
from tests import disks


def matrix(rows: int, cols: int, density: float, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=rng) * (torch.rand(rows, cols, generator=rng) < density)


@given(
    st.integers(0, 30),
    st.integers(0, 30),
    st.floats(0, 1),
    st.sampled_from([torch.bfloat16, torch.float16, torch.int8]),
)
def test_what_was_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, rows: int, cols: int, density: float, dtype: torch.dtype
) -> None:
    path = tmp_path_factory.mktemp("files") / "w.safetensors"
    weight = pack(matrix(rows, cols, density), dtype)
    files.save(path, {"a.weight": weight}, {"other": torch.arange(3)})
    weights, dense = files.load(path)
    back = weights["a.weight"]
    assert (back.rows, back.cols, back.kept) == (rows, cols, weight.kept)
    assert torch.equal(unpack(back), unpack(weight))
    assert torch.equal(back.values_P, weight.values_P)
    assert torch.equal(back.starts_S, weight.starts_S)
    assert torch.equal(dense["other"], torch.arange(3))


def test_what_was_loaded_follows_no_change_of_the_file(saved: Path) -> None:
    weights, dense = files.load(saved)
    before = [(unpack(weight).clone(), weight.masks_ST.clone()) for weight in weights.values()]
    with saved.open("r+b") as file:
        file.write(bytes(saved.stat().st_size))
    for weight, (values, masks) in zip(weights.values(), before, strict=True):
        assert torch.equal(weight.masks_ST, masks)
        assert torch.equal(unpack(weight), values)
    assert torch.equal(dense["d"], torch.arange(3))
    os.truncate(saved, 0)
    assert torch.equal(dense["d"], torch.arange(3))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    files.save(path, {"w": pack(matrix(20, 30, 0.5)), "v": pack(matrix(9, 9, 0.5), torch.int8)}, {"d": torch.arange(3)})
    return path


def changed(path: Path, tensors: dict[str, torch.Tensor], told: object = None) -> None:
    """Write the file again with other tensors or another metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if told is not None:
        metadata = {**metadata, "tandem_sparse": told if isinstance(told, str) else json.dumps(told)}
    save_file({**load_file(path), **tensors}, path, metadata=metadata)


def metadata_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["tandem_sparse"])


def test_every_flipped_value_is_noticed(saved: Path) -> None:
    tensors = load_file(saved)
    for name in ("w.sparse_values", "w.sparse_masks", "v.sparse_values", "v.sparse_scales", "d"):
        bad = tensors[name].clone()
        bad.view(-1).view(torch.uint8)[3] ^= 4
        changed(saved, {name: bad})
        with pytest.raises(SparseFormatError, match=r"damaged: [wvd]"):
            files.load(saved)
        changed(saved, {name: tensors[name]})
    files.load(saved)


def test_another_version_is_refused(saved: Path) -> None:
    changed(saved, {}, {**metadata_of(saved), "version": 3})
    with pytest.raises(SparseFormatError, match="version 3; allowed: versions 1 to 2"):
        files.load(saved)


@pytest.mark.parametrize("told", ["no json", "[]", '{"version": 1}', '{"version": 1, "weights": {"w": 3}}'])
def test_metadata_that_makes_no_sense_is_refused(saved: Path, told: str) -> None:
    changed(saved, {}, told)
    with pytest.raises(SparseFormatError):
        files.load(saved)


def as_version_1(path: Path) -> dict[str, Any]:
    """Write the file again as version 1 had it: checksums of weights' bytes alone."""
    tensors, told = load_file(path), metadata_of(path)
    for name, about in told["weights"].items():
        parts = [tensors.get(f"{name}.sparse_{part}") for part in ("masks", "values", "scales")]
        content = b"".join(t.view(-1).view(torch.uint8).numpy().tobytes() for t in parts if t is not None)
        about["xxh3"] = xxhash.xxh3_64_hexdigest(content)
    old = {"version": 1, "weights": told["weights"]}
    changed(path, {}, old)
    return old


def test_files_of_version_1_are_still_read(saved: Path) -> None:
    as_version_1(saved)
    weights, dense = files.load(saved)
    assert torch.equal(unpack(weights["w"]), matrix(20, 30, 0.5).bfloat16())
    assert torch.equal(dense["d"], torch.arange(3))


@pytest.mark.parametrize("wrong", [{"version": True}, {"weights": []}, {"weights": {}}])
def test_metadata_of_the_wrong_kind_is_refused(saved: Path, wrong: dict[str, Any]) -> None:
    changed(saved, {}, {**as_version_1(saved), **wrong})
    with pytest.raises(SparseFormatError):
        files.load(saved)


@pytest.mark.parametrize("shape", [[20, 31], [20.0, 30]])
def test_another_shape_of_as_many_tiles_is_noticed(saved: Path, shape: list[float]) -> None:
    told = metadata_of(saved)
    told["weights"]["w"]["shape"] = shape
    changed(saved, {}, told)
    with pytest.raises(SparseFormatError, match=r"w has another checksum|no two whole numbers"):
        files.load(saved)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    weight, tensor = pack(matrix(9, 9, 0.5)), torch.ones(3)
    with pytest.raises(SparseFormatError, match="another name"):
        files.save(tmp_path / "w", {"w": weight}, {"w.sparse_values": tensor})
    with pytest.raises(SparseFormatError, match="share"):
        files.save(tmp_path / "w", {"w": weight}, {"a": tensor, "b": tensor})
    with pytest.raises(SparseFormatError, match=r"cannot be written: .*; make the folder"):
        files.save(str(tmp_path / "absent" / "w"), {"w": weight})
    with pytest.raises(SparseFormatError, match=r"complex128; .*convert"):
        files.save(tmp_path / "w", {"w": weight}, {"a": tensor.to(torch.complex128)})
    for folder in (tmp_path, ""):
        with pytest.raises(SparseFormatError, match=r"a folder; .*add the file's name"):
            files.save(folder, {"w": weight})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_a_dense_tensor_that_has_no_bytes_to_store_is_named(tensor: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(SparseFormatError, match="dense tensor 'a' of type"):
        files.save(tmp_path / "w", {}, {"a": tensor})
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_written_over_by_one_that_cannot_be_read(saved: Path) -> None:
    with pytest.raises(SparseFormatError, match="another name"):
        files.save(saved, {}, {"__metadata__": torch.ones(3)})
    files.load(saved)


def test_views_that_are_conjugated_or_negated_are_stored_as_they_read(tmp_path: Path) -> None:
    numbers = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    files.save(tmp_path / "w", {}, {"conjugated": numbers.conj(), "negated": numbers.conj().imag})
    dense = files.load(tmp_path / "w")[1]
    assert torch.equal(dense["conjugated"], torch.tensor([1 - 2j, 3 + 4j], dtype=torch.complex64))
    assert torch.equal(dense["negated"], torch.tensor([-2.0, 4.0]))


def test_a_disk_that_is_full_asks_for_room_and_keeps_the_file(tmp_path: Path) -> None:
    with disks.small(tmp_path / "small", 1) as disk:
        files.save(disk / "w", {"w": pack(matrix(9, 9, 0.5))})
        with pytest.raises(SparseFormatError, match=r"No space left.*; make room"):
            files.save(disk / "w", {"w": pack(matrix(1024, 1024, 0.9))})
        assert [file.name for file in disk.iterdir()] == ["w"]
        files.load(disk / "w")


def test_a_file_has_the_rights_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    files.save(tmp_path / "w", {})
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_shape_that_does_not_fit_is_refused(saved: Path) -> None:
    for shape in ([20, 40], [12, 30], [20, 25], [-20, 30]):
        told = as_version_1(saved)
        told["weights"]["w"]["shape"] = shape
        changed(saved, {}, told)
        with pytest.raises(SparseFormatError, match="fit"):
            files.load(saved)


def test_a_part_that_is_missing_is_refused(saved: Path) -> None:
    told = metadata_of(saved)
    told["weights"]["ghost"] = told["weights"]["w"]
    changed(saved, {}, told)
    with pytest.raises(SparseFormatError, match="lacks a part of ghost"):
        files.load(saved)


def test_what_is_no_such_file_is_refused(tmp_path: Path, saved: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "text").write_text("text")
    (tmp_path / "cut").write_bytes(saved.read_bytes()[:-10])
    for name in ("plain.safetensors", "text", "cut", "absent"):
        with pytest.raises(SparseFormatError, match=name):
            files.load(tmp_path / name)


@pytest.mark.parametrize(
    "scales",
    [
        torch.tensor(1.0),
        torch.ones(9, 1),
        torch.ones(8),
        torch.ones(9, dtype=torch.float64),
        torch.ones(9, dtype=torch.int32),
    ],
    ids=["no dimension", "two", "too few", "float64", "int32"],
)
def test_scales_of_another_type_or_shape_are_refused(saved: Path, scales: torch.Tensor) -> None:
    changed(saved, {"v.sparse_scales": scales})
    as_version_1(saved)
    with pytest.raises(SparseFormatError, match="parts of v that do not fit 9 x 9"):
        files.load(saved)


def test_a_dense_tensor_of_one_number_may_have_any_stride(tmp_path: Path) -> None:
    files.save(tmp_path / "one.safetensors", {}, {"b": torch.tensor([3.0, 4.0])[::2]})
    assert files.load(tmp_path / "one.safetensors")[1]["b"].tolist() == [3.0]
