"""The loader over real spaces: every sample once, the right bytes, and states that only fit what they were made of."""

from pathlib import Path

import pytest

from tandem.core.errors import DataError
from tandem.data import Loader, Mixture
from tandem.data.space import Space
from tandem.data.space.changing import delete
from tandem.data.space.writer import SpaceWriter
from tandem.data.steps import LoaderError

FILES = {f"{number % 7}/{number}.bin": bytes([number % 251]) * (number % 90) for number in range(230)}


def packed(folder: Path, files: dict[str, bytes]) -> Path:
    with SpaceWriter(folder) as writer:
        for path, data in files.items():
            writer.add(path, data)
        writer.commit()
    return folder


@pytest.mark.parametrize("world", [1, 3])
def test_all_ranks_together_get_every_sample_once_with_its_bytes(tmp_path: Path, world: int) -> None:
    folder = packed(tmp_path / "a.space", FILES)
    seen: list[bytes] = []
    for rank in range(world):
        with Space.open(folder, threads=1) as space, Loader(space, 16, seed=3, rank=rank, world=world) as loader:
            for batch in loader:
                seen += map(bytes, batch)
    assert sorted(seen) == sorted(FILES.values())


def test_a_state_is_refused_once_numbers_mean_other_samples(tmp_path: Path) -> None:
    folder = packed(tmp_path / "a.space", FILES)
    with Space.open(folder) as space:
        state = Loader(space, 16).state_dict()
        Loader(space, 16).load_state_dict(state)
    delete(str(folder), ["3/3.bin"])
    packed(folder, {"new.bin": b"as many as before"})
    with Space.open(folder) as space:
        assert len(space) == len(FILES)
        with pytest.raises(LoaderError, match=r"generation 1; this loader reads .*generation 3"):
            Loader(space, 16).load_state_dict(state)
        mixed = Loader(Mixture([space, space], weights=[1, 2]), 16)
        assert "generation 3" in mixed.state_dict()["samples"]


def test_damage_is_raised_at_its_batch_and_names_the_sample(tmp_path: Path) -> None:
    folder = packed(tmp_path / "a.space", FILES)
    (shard,) = (folder / "shards").iterdir()
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(raw)
    read: list[int] = []
    with Space.open(folder) as space, Loader(space, 10, shuffle=False, workers=1) as loader:
        with pytest.raises(DataError, match=r"\d/\d+\.bin"):
            read.extend(len(batch) for batch in loader)
        assert 0 < len(read) < len(loader)
        assert set(read) == {10}
