"""Arranged layers: what they refuse anywhere, and on a GPU that they multiply as the layers that they were made of."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from tandem.kernels.sparse import lanes, reference
from tandem.kernels.sparse.arranged import ArrangedLinear, arrange, arranged_linear
from tandem.kernels.sparse.format import pack
from tandem.kernels.sparse.linear import SparseLinear
from tandem.kernels.sparse.mistakes import SparseFormatError, SparseShapeError
from tandem.kernels.sparse.model import save_pretrained
from tests.conftest import requires

gpu = requires("gpu", "cuda_core")


def sparse_layer(
    rows: int, cols: int, density: float, dtype: torch.dtype, *, bias: bool = True, activation: str = "none"
) -> SparseLinear:
    rng = torch.Generator().manual_seed(rows * 1000 + cols + int(100 * density))
    dense = torch.randn(rows, cols, generator=rng) * (torch.rand(rows, cols, generator=rng) < density)
    of_rows = torch.randn(rows, generator=rng) if bias else None
    return SparseLinear(pack(dense, dtype), of_rows, activation=activation)


def test_what_lies_on_no_gpu_stays_as_it_is() -> None:
    layer = sparse_layer(32, 64, 0.4, torch.bfloat16)
    with pytest.raises(SparseShapeError, match="lies on cpu"):
        ArrangedLinear(layer)
    model = nn.Sequential(layer)
    assert arrange(model) == []
    assert model[0] is layer


def test_x_that_does_not_fit_is_refused_as_for_a_sparse_layer() -> None:
    found = lanes.arrange(sparse_layer(32, 64, 0.4, torch.bfloat16).weight)
    rest = (*found[:4], None, None, 32, 64, found.longest, "none")
    assert arranged_linear(torch.ones(2, 0, 64), *rest).shape == (2, 0, 32)
    for x, why in [
        (torch.ones(3, 63), "for a weight of 32 x 64"),
        (torch.ones(3, 64, dtype=torch.int64), "torch.int64"),
        (torch.eye(64).to_sparse(), "sparse_coo tensor"),
        (torch.ones(3, 64, device="meta"), "x on meta"),
    ]:
        with pytest.raises(SparseShapeError, match=why):
            arranged_linear(x, *rest)


def test_the_order_of_lanes_keeps_every_value_and_types() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.int8):
        weight = sparse_layer(40, 600, 0.3, dtype).weight
        arranged = lanes.arrange(weight)
        assert arranged.values_RS.dtype == dtype
        kept = weight.values_P[: weight.kept]
        assert torch.equal(arranged.values_RS[arranged.values_RS != 0].sort()[0], kept[kept != 0].sort()[0])


@gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.4, 0.97, 1.0])
def test_it_multiplies_as_the_reference_does(dtype: torch.dtype, density: float) -> None:
    for (rows, cols), count in itertools.product([(1, 1), (7, 5), (67, 129), (200, 1300)], [0, 1, 9, 33, 100]):
        layer = sparse_layer(rows, cols, density, dtype, bias=False)
        arranged = ArrangedLinear(copy.deepcopy(layer).cuda())
        x = torch.randn(count, cols)
        expected = reference.forward(layer.weight, x)
        allowed = 4e-3 * reference.magnitude(layer.weight, x) + 1e-30
        y = arranged(x.cuda()).cpu()
        assert (y.shape, y.dtype) == (expected.shape, torch.float32)
        assert bool(((y - expected).abs() <= allowed).all())


@gpu
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("count", [3, 70])
def test_bias_and_activation_are_those_of_the_layer(activation: str, count: int) -> None:
    layer = sparse_layer(300, 700, 0.4, torch.bfloat16, activation=activation).cuda()
    arranged, x = ArrangedLinear(layer), torch.randn(2, count, 700, device="cuda").bfloat16()
    y, expected = arranged(x), layer(x)
    assert y.shape == (2, count, 300)
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.equal(arranged(x.float()), y)


@gpu
def test_results_are_the_same_every_time_and_in_a_graph_and_compiled() -> None:
    arranged = ArrangedLinear(sparse_layer(4096, 4096, 0.4, torch.bfloat16).cuda())
    x = torch.randn(8, 4096, device="cuda").bfloat16()
    y = arranged(x)
    assert all(torch.equal(arranged(x), y) for _ in range(5))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = arranged(x)
    recorded.zero_()
    graph.replay()
    assert torch.equal(recorded, y)
    assert torch.equal(torch.compile(arranged, fullgraph=True)(x), y)


@gpu
def test_a_model_is_arranged_in_place_and_holds_its_weights_once(tmp_path: Path) -> None:
    layers = [sparse_layer(1024, 1024, 0.4, torch.bfloat16).cuda() for _ in range(3)]
    model = nn.Sequential(*layers, sparse_layer(8, 1024, 0.4, torch.bfloat16).cuda().trainable())
    x = torch.randn(4, 1024, device="cuda")
    expected, format_bytes = model(x).detach(), sum(layer.weight.size_bytes for layer in layers)
    del layers
    before = torch.cuda.memory_allocated()
    assert arrange(model) == ["0", "1", "2"]
    grown = torch.cuda.memory_allocated() - before
    assert isinstance(model[3], SparseLinear)
    held = sum(part.size_bytes for part in model if isinstance(part, ArrangedLinear))
    assert held <= 1.2 * format_bytes
    assert grown <= held - format_bytes + (1 << 16)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(SparseFormatError, match="arranged"):
        save_pretrained(model, tmp_path / "model")


@gpu
def test_what_an_arranged_layer_cannot_do_is_said() -> None:
    layer = sparse_layer(64, 128, 0.4, torch.bfloat16).cuda()
    arranged = ArrangedLinear(layer)
    with pytest.raises(SparseShapeError, match="gradient is wanted"):
        arranged(torch.randn(2, 128, device="cuda", requires_grad=True))
    with pytest.raises(SparseShapeError, match="for a weight of 64 x 128"):
        arranged(torch.randn(2, 127, device="cuda"))
    with pytest.raises(SparseShapeError, match="to be moved to cpu"):
        arranged.cpu()
    hooked = copy.deepcopy(layer)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(SparseShapeError, match="has hooks"):
        ArrangedLinear(hooked)
    twice = nn.Sequential(layer, nn.Linear(64, 128).cuda(), layer).eval()
    assert arrange(twice) == ["0", "2"]
    assert twice[0] is twice[2]
    assert not twice[0].training
    with pytest.raises(SparseShapeError, match="is being trained"):
        ArrangedLinear(layer.trainable())
    assert arranged.half().values.dtype == torch.bfloat16
