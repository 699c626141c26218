"""Folders of models: read whole or not at all, written whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tandem.kernels.model_folder import ModelFolderError
from tandem.kernels.prune import folder
from tandem.kernels.prune.errors import PruneError
from tests.kernels.prune.models import folder_of, model_of


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("models") / "dense")


@pytest.fixture
def copy(dense: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dense, tmp_path / "copy"))


def words_beside(path: Path) -> Any:  # noqa: ANN401 - transformers has no types
    """A tokenizer of four words."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "king": 2, "speaks": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(path)


def test_without_a_tokenizer_tokens_are_bytes(dense: Path) -> None:
    loaded = folder.read(dense)
    assert loaded.tokenizer is None
    assert loaded.tokenize(b"AB").tolist() == [65, 66]
    assert (loaded.vocabulary, loaded.most_tokens, loaded.model.training) == (256, 64, False)


@pytest.mark.slow
def test_a_tokenizer_is_used_and_goes_along(copy: Path, tmp_path: Path) -> None:
    words_beside(copy)
    loaded = folder.read(copy)
    assert loaded.tokenize("the king é speaks".encode()).tolist() == [1, 2, 0, 3]
    assert loaded.tokenize(b"the \xff king").tolist() == [1, 0, 2]
    with folder.written_aside(tmp_path / "out") as aside:
        folder.save(loaded, aside, {"method": "wanda"})
    assert folder.read(tmp_path / "out").tokenize(b"king").tolist() == [2]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_saved_is_loaded_to_the_bit_by_transformers_itself(dtype: torch.dtype, tmp_path: Path) -> None:
    model_of("llama").to(dtype).save_pretrained(tmp_path / "dense")
    loaded = folder.read(tmp_path / "dense")
    loaded.model.model.layers[0].mlp.up_proj.weight.data[:, ::2] = 0.0
    with folder.written_aside(tmp_path / "out") as aside:
        folder.save(loaded, aside, {"method": "wanda", "sparsity": 0.5})
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    for (name, one), other in zip(loaded.model.named_parameters(), again.parameters(), strict=True):
        assert one.dtype == other.dtype == dtype
        assert torch.equal(one, other), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())[folder.NOTE] == {
        "method": "wanda",
        "sparsity": 0.5,
    }
    modes = {file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert len(modes) == 1  # who may read one file may read all


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    def interrupted() -> None:
        with folder.written_aside(tmp_path / "out") as aside:
            (aside / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_emptied(tmp_path: Path) -> None:
    left = tmp_path / ".out.aside"
    (left / "deep").mkdir(parents=True)
    (left / "half").touch()
    with folder.written_aside(tmp_path / "out") as aside:
        assert list(aside.iterdir()) == []
        (aside / "config.json").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def made_meanwhile() -> None:
        with folder.written_aside(out) as aside:
            (aside / "config.json").touch()
            out.mkdir()

    for _ in range(2):  # while it is written, and before
        with pytest.raises(PruneError, match="out is there already"):
            made_meanwhile()
        assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_a_link_that_leads_nowhere_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nothing")
    with pytest.raises(PruneError, match="out is there already"), folder.written_aside(tmp_path / "out"):
        pytest.fail("it was begun")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_longest_name_is_as_good_as_any_and_one_that_is_longer_is_refused_first(tmp_path: Path) -> None:
    longest = tmp_path / ("é" * 127 + "x")
    with folder.written_aside(longest) as aside:
        (aside / "config.json").touch()
        with pytest.raises(PruneError, match="another run is writing"), folder.written_aside(longest):
            pytest.fail("it was begun")
        with folder.written_aside(longest.with_name(longest.name[:-1] + "y")) as other:
            (other / "config.json").touch()
    assert (longest / "config.json").exists()
    with pytest.raises(PruneError, match=r"x{256}, which cannot be a folder's name .*too long"):
        folder.written_aside(tmp_path / ("x" * 256)).__enter__()


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with folder.written_aside(tmp_path / "out") as aside:
        (aside / "config.json").touch()
        with pytest.raises(PruneError, match="another run is writing"), folder.written_aside(tmp_path / "out"):
            pass
        assert (aside / "config.json").exists()
    assert (tmp_path / "out" / "config.json").exists()


def test_what_is_no_model(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no such folder"):
        folder.read(tmp_path / "nothing")
    with pytest.raises(ModelFolderError, match=r"it has no config\.json"):
        folder.read(tmp_path)
    (copy / "config.json").write_text('{"model_type": "martian"}')
    with pytest.raises(ModelFolderError, match="martian"):
        folder.read(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelFolderError, match=r"its config\.json is no JSON"):
        folder.read(copy)


def test_a_folder_of_packed_weights_asks_for_the_dense_one(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "sparse.safetensors")
    with pytest.raises(ModelFolderError, match=r"is packed already .*; give the dense folder that it was made of"):
        folder.read(copy)


def test_weights_that_are_cut_or_lacking(copy: Path) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        ModelFolderError, match=r"lacks 1 of its tensors, such as model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        folder.read(copy)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelFolderError, match="cannot be loaded"):
        folder.read(copy)
    file.unlink()
    with pytest.raises(ModelFolderError, match="cannot be loaded"):
        folder.read(copy)


def test_a_tokenizer_that_is_broken_is_not_taken_for_none(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ModelFolderError, match=r"the tokenizer in .* cannot be loaded"):
        folder.read(copy)
