"""Whole models: layers are swapped, nothing dense is kept of them, and a folder brings back the same model."""

import copy
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrize import register_parametrization
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from tandem.core.errors import UnknownPluginError
from tandem.kernels.sparse.linear import SparseLinear
from tandem.kernels.sparse.mistakes import SparseFormatError, SparseShapeError
from tandem.kernels.sparse.model import load_pretrained, resident_bytes, save_pretrained, sparsify
from tests import disks

TOKENS = torch.tensor([[1, 5, 2, 7, 7, 3]])


def small_llama(*, tied: bool = False, attention_bias: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=tied,
        attention_bias=attention_bias,
    )
    model = LlamaForCausalLM(config).eval()
    for part in model.model.layers.modules():
        if isinstance(part, nn.Linear):
            part.weight.data.mul_(torch.rand_like(part.weight) < 0.4)
            part.weight.data.copy_(part.weight.bfloat16())
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_comes_back_from_its_folder(tied: bool, tmp_path: Path) -> None:
    model = small_llama(tied=tied)
    with torch.no_grad():
        dense = model(TOKENS).logits
        report = sparsify(model)
        sparse = model(TOKENS).logits
        save_pretrained(model, tmp_path)
        again = load_pretrained(tmp_path)
        loaded = again(TOKENS).logits
    torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-5)
    assert torch.equal(loaded, sparse)
    assert {row.name for row in report if not row.why_dense} == {
        name for name, part in again.named_modules() if isinstance(part, SparseLinear)
    }
    assert len([row for row in report if not row.why_dense]) == 14
    assert next(row for row in report if row.name == "lm_head").why_dense
    if tied:
        assert again.lm_head.weight is again.model.embed_tokens.weight


def test_a_loaded_model_generates_what_it_did_before(tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    save_pretrained(model, tmp_path)
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(TOKENS)
    before = model.generate(TOKENS, attention_mask=mask, **options)
    assert torch.equal(load_pretrained(tmp_path).generate(TOKENS, attention_mask=mask, **options), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_nothing_dense_is_kept(dtype: torch.dtype) -> None:
    layers = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(3)))
    for layer in layers:
        layer.weight.data.mul_(torch.rand_like(layer.weight) < 0.4)
    report = sparsify(layers, dtype)
    expected = sum(row.bits_per_weight * row.rows * row.cols / 8 for row in report if row.bits_per_weight)
    bits = 1 + torch.finfo(dtype).bits * 0.4 if dtype.is_floating_point else 1 + 8 * 0.4
    assert resident_bytes(layers) <= 1.001 * expected
    assert resident_bytes(layers) <= 1.1 * 3 * 256 * 256 * bits / 8


def test_layers_with_few_zeros_stay_dense_and_say_so() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].weight.data.zero_()
    report = sparsify(model)
    assert isinstance(model[0], nn.Linear)
    assert "0% zeros are too few" in report[0].why_dense
    assert isinstance(model[1], SparseLinear)
    assert report[1].density == 0


def test_what_is_asked_for_wrongly_is_refused() -> None:
    with pytest.raises(SparseShapeError, match="float64"):
        sparsify(nn.Linear(2, 2), torch.float64)
    for layer in (nn.Linear(2, 2), Conv1D(2, 2), Spelt(2, 2)):
        with pytest.raises(SparseShapeError, match=r"SparseLinear\.from_dense"):
            sparsify(layer)


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Spelt(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.bias


class Clamped(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).clamp(-50, 50)


class Dropping(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


class Scaling(nn.Linear):
    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return scale * super().forward(x)


class Shifting(nn.Linear):
    """Of a stack of rows, it takes the row before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.roll(1, -2) if x.ndim == 3 else x)


class ReadsOne(nn.Module):
    """Uses a layer's weight as a tensor, in what its forward calls."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.called = nn.Linear(8, 8), nn.Linear(8, 8)
        nn.init.zeros_(self.called.weight)
        nn.init.zeros_(self.read.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.called(x))

    def inner(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.read.weight


def test_a_layer_with_a_forward_of_its_own_is_swapped_where_it_does_what_linear_does() -> None:
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(Doubled(16, 8), Spelt(16, 8), nn.MultiheadAttention(8, 2), Conv1D(8, 16))
    for part in model.modules():
        if isinstance(part, nn.Linear | Conv1D):
            weight = torch.randn(part.weight.shape, generator=rng).bfloat16().float()
            part.weight.data = weight * (torch.rand(weight.shape, generator=rng) < 0.5)
            part.bias.data = torch.randn(part.bias.shape, generator=rng)
    x = torch.randn(5, 16, generator=rng)
    before = [part(x) for part in (model[1], model[3])]
    why = {row.name: row.why_dense for row in sparsify(model)}
    assert why["0"] == "Doubled is not known to give x @ weight.T + bias"
    assert why["2.out_proj"] == "MultiheadAttention reads its weight by itself"
    assert why["1"] == why["3"] == ""
    for part, expected in zip((model[1], model[3]), before, strict=True):
        assert isinstance(part, SparseLinear)
        torch.testing.assert_close(part(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Clamped, Dropping, Scaling, Shifting])
def test_a_layer_that_does_something_else_at_times_stays_dense(kind: type[nn.Linear]) -> None:
    model = nn.Sequential(kind(16, 8)).eval()
    nn.utils.vector_to_parameters(torch.eye(8, 17).flatten(), model.parameters())
    (row,) = sparsify(model)
    assert row.why_dense == f"{kind.__name__} is not known to give x @ weight.T + bias"
    assert not model.training


CHANGES: dict[str, tuple[Callable[[nn.Linear], object], str]] = {
    "pruned by torch": (
        lambda part: prune.l1_unstructured(part, "weight", 0.6),
        r"weight is computed, .*prune\.remove",
    ),
    "bias pruned by torch": (lambda part: prune.l1_unstructured(part, "bias", 0.6), "bias is computed"),
    "parametrized": (lambda part: register_parametrization(part, "weight", nn.Tanh()), "weight is computed"),
    "hook before": (lambda part: part.register_forward_pre_hook(lambda _, x: x), "hooks"),
    "hook behind": (lambda part: part.register_forward_hook(lambda *_: None), "hooks"),
    "hook before gradients": (lambda part: part.register_full_backward_pre_hook(lambda *_: None), "hooks"),
    "hook behind gradients": (lambda part: part.register_full_backward_hook(lambda *_: None), "hooks"),
    "forward": (lambda part: setattr(part, "forward", lambda x: x), "forward was replaced"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_was_changed_by_itself_stays_dense(change: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    for part in model:
        part.weight.data.triu_(4)
    make, why = CHANGES[change]
    make(model[1])
    report = sparsify(model)
    assert not report[0].why_dense
    assert re.search(why, report[1].why_dense)
    assert not isinstance(model[1], SparseLinear)
    with pytest.raises(SparseShapeError, match=why):
        SparseLinear.from_dense(model[1])


def test_a_bias_that_layers_share_is_trained_once() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    for layer in dense:
        layer.weight.data[:, ::2] = 0
        layer.weight.data.copy_(layer.weight.bfloat16())
    dense[1].bias = dense[0].bias
    model = copy.deepcopy(dense)
    report = sparsify(model)
    for part in model.modules():
        if isinstance(part, SparseLinear):
            part.trainable()
    for trained in (dense, model):
        optimiser = torch.optim.Adam(trained.parameters(), lr=0.1)
        trained(torch.ones(3, 8)).square().sum().backward()
        optimiser.step()
    for one, other in zip(model, dense, strict=True):
        torch.testing.assert_close(one.bias, other.bias)
    assert [row.why_dense for row in report] == [*["its bias is shared with another layer"] * 2, ""]


def test_a_layer_without_a_weight_stays_dense() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.LazyLinear(8), Conv1D(8, 8), nn.Linear(8, 8))
    model[3].weight.data.triu_(4)
    model[0].weight = model[2].weight = None
    report = sparsify(model)
    assert [row.why_dense for row in report] == [
        "it has no weight",
        "its weight has no size yet: run the model once",
        "it has no weight",
        "",
    ]
    assert [(row.rows, row.cols) for row in report] == [(8, 8), (8, 0), (8, 8), (8, 8)]


def test_a_layer_whose_weight_is_read_by_its_owner_stays_dense() -> None:
    model = ReadsOne()
    assert {row.name: row.why_dense for row in sparsify(model)} == {
        "read": "ReadsOne reads its weight by itself",
        "called": "",
    }
    assert model(torch.ones(2, 8)).shape == (2, 8)
    with pytest.raises(SparseShapeError, match=r"operand of matmul.*; leave dense .* skip="):
        torch.ones(2, 8) @ model.called.weight
    with pytest.raises(SparseShapeError, match=r"operand of linear"):
        nn.functional.linear(torch.ones(2, 8), model.called.weight)


@pytest.mark.parametrize("unread", ["read", ["read"]])
def test_a_layer_that_is_said_to_be_unread_is_swapped_and_a_read_refused(unread: str | list[str]) -> None:
    model = ReadsOne()
    assert not any(row.why_dense for row in sparsify(model, unread=unread))
    assert model.read(torch.ones(2, 8)).shape == (2, 8)
    with pytest.raises(SparseShapeError, match=r"operand of matmul"):
        model(torch.ones(2, 8))


@pytest.mark.parametrize("wrong", ["nan", "meta"])
def test_a_layer_that_cannot_be_packed_is_named_and_nothing_is_changed(wrong: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    for part in model:
        part.weight.data.zero_()
    model[1].weight.data[0, 0] = torch.nan
    if wrong == "meta":
        model[1].to("meta")
    with pytest.raises(SparseShapeError, match="layer 1 with"):
        sparsify(model, torch.int8)
    assert [type(part) for part in model] == [nn.Linear, nn.Linear]


def test_a_backend_that_is_none_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    model[0].weight.data.zero_()
    with pytest.raises(UnknownPluginError, match="nope"):
        sparsify(model, backend="nope")
    assert type(model[0]) is nn.Linear
    with pytest.raises(UnknownPluginError, match="nope"):
        load_pretrained(tmp_path, backend="nope")


def test_one_name_to_leave_out_is_no_collection_of_letters() -> None:
    model = nn.ModuleDict({"head": nn.Linear(8, 8), "ea": nn.Linear(8, 8)})
    for part in model.values():
        part.weight.data.zero_()
    assert {row.name: bool(row.why_dense) for row in sparsify(model, skip="head")} == {"head": True, "ea": False}


def test_a_folder_may_be_a_text_and_is_no_file(tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    save_pretrained(model, str(tmp_path / "packed"))
    assert any(isinstance(part, SparseLinear) for part in load_pretrained(str(tmp_path / "packed")).modules())
    (tmp_path / "file").write_text("")
    with pytest.raises(SparseFormatError, match="cannot be made"):
        save_pretrained(model, tmp_path / "file")


def test_a_model_saved_by_its_own_method_says_which_to_call(tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    save_pretrained(model, tmp_path / "packed")
    again = pickle.loads(pickle.dumps(load_pretrained(tmp_path / "packed")))
    for sparse in (model, model.model, copy.deepcopy(model), again):
        with pytest.raises(SparseFormatError, match=r"model\.save_pretrained\(model, folder\)"):
            sparse.save_pretrained(tmp_path / "own", safe_serialization=True)
    assert not (tmp_path / "own").exists()
    LlamaForCausalLM.save_pretrained(model, tmp_path)
    with pytest.raises(SparseFormatError, match=r"own save_pretrained; .*model\.save_pretrained\(model, folder\)"):
        load_pretrained(tmp_path)


def test_a_model_that_stays_dense_keeps_its_own_saving(tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model, skip=[name.rpartition(".")[2] for name, part in model.named_modules() if type(part) is nn.Linear])
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()


def test_transformers_by_itself_refuses_a_folder_of_sparse_weights(tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    save_pretrained(model, tmp_path)
    for kind in (AutoModel, AutoModelForCausalLM):
        with pytest.raises(OSError, match="no file named"):
            kind.from_pretrained(tmp_path)


def test_the_former_name_of_the_weights_is_read_and_goes_when_they_are_written_again(tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    save_pretrained(model, tmp_path)
    former = (tmp_path / "sparse.safetensors").rename(tmp_path / "model.safetensors")
    again = load_pretrained(tmp_path)
    assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)
    save_pretrained(again, tmp_path)
    assert not former.exists()
    assert torch.equal(load_pretrained(tmp_path)(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize("part", ["bias", "weight"])
def test_what_two_layers_share_comes_back_in_both(part: str, tmp_path: Path) -> None:
    model = small_llama(attention_bias=True)
    for layer in model.model.layers:
        nn.init.normal_(layer.self_attn.k_proj.bias)
        setattr(layer.self_attn.v_proj, part, getattr(layer.self_attn.k_proj, part))
    sparsify(model)
    save_pretrained(model, tmp_path)
    assert torch.equal(load_pretrained(tmp_path)(TOKENS).logits, model(TOKENS).logits)


def test_a_tensor_that_begins_where_another_does_is_stored_too(tmp_path: Path) -> None:
    model = small_llama()
    model.model.norm.weight = nn.Parameter(model.model.embed_tokens.weight.detach()[0])
    sparsify(model)
    save_pretrained(model, tmp_path)
    assert torch.equal(load_pretrained(tmp_path)(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize("skip", [["lm_head"], []])
def test_a_head_of_its_own_is_not_replaced_by_the_embeddings(skip: list[str], tmp_path: Path) -> None:
    model = small_llama()
    model.lm_head.weight.data.triu_()
    sparsify(model, skip=skip)
    save_pretrained(model, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tie_word_embeddings": True}))
    with pytest.raises(SparseFormatError, match=r"lm_head\.weight is another's \(tie_word_embeddings\)"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"])
def test_a_dense_model_is_not_joined_in_its_folder(name: str, tmp_path: Path) -> None:
    small_llama().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    model = small_llama()
    sparsify(model)
    with pytest.raises(SparseFormatError, match=f"{name} has weights .* choose another folder"):
        save_pretrained(model, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("free_bytes", [0, 20_000])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_disk_that_is_full_leaves_what_was_there(free_bytes: int, is_there: bool, tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    with disks.small(tmp_path / "small", 1) as disk:
        if is_there:
            save_pretrained(model, disk / "packed")
        before = {file: file.read_bytes() for file in disk.rglob("*.*")}
        fill = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free_bytes
        (disk / "filling").write_bytes(bytes(fill))
        with pytest.raises(SparseFormatError, match=r"packed.* cannot be written: .*No space left.*; make room"):
            save_pretrained(model, disk / "packed")
        assert {file: file.read_bytes() for file in disk.rglob("*.*")} == before
        assert (disk / "packed").exists() == is_there


def test_a_configuration_that_transformers_does_not_write_is_told_of(tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    model.generation_config.temperature = 0.5  # of no effect without sampling
    with pytest.raises(SparseFormatError, match="set right what is named"):
        save_pretrained(model, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_folders_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SparseFormatError, match=r"sparse\.safetensors"):
        load_pretrained(tmp_path)
    model = small_llama()
    sparsify(model)
    save_pretrained(model, tmp_path)
    generation, whole = tmp_path / "generation_config.json", (tmp_path / "generation_config.json").read_bytes()
    generation.write_bytes(b"")
    with pytest.raises(SparseFormatError, match="generation_config"):
        load_pretrained(tmp_path)
    generation.write_bytes(whole)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SparseFormatError, match="no sparse model"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_hidden_layers": 1}, r"no layer model\.layers\.1"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"vocab_size": 60}, "size mismatch"),
        ({"num_key_value_heads": 4}, r"k_proj is 16 x 32 in the file and 32 x 32 by its config\.json"),
        ({"intermediate_size": 80}, "gate_proj is 72 x 32 in the file and 80 x 32"),
        ({"attention_bias": True}, "q_proj has a bias in one alone"),
        ({"hidden_size": "a"}, "'hidden_size'.*expected int"),
        ({"hidden_size": 31}, "not a multiple"),
        ({"hidden_act": "nope"}, "KeyError: 'nope'"),
        ({"model_type": "t5"}, "T5Config"),
    ],
    ids=str,
)
def test_a_configuration_of_another_model_is_refused(change: dict[str, object], why: str, tmp_path: Path) -> None:
    model = small_llama()
    sparsify(model)
    save_pretrained(model, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(SparseFormatError, match=why):
        load_pretrained(tmp_path)
