"""The layer: equals a dense one forwards and backwards, compiles in one piece, and refuses what does not fit."""

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from tandem.core.errors import UnknownPluginError
from tandem.kernels.sparse import reference
from tandem.kernels.sparse.format import pack, starts_of, unpack
from tandem.kernels.sparse.linear import SparseLinear
from tandem.kernels.sparse.mistakes import BackendError, SparseShapeError


def pruned(rows: int, cols: int, density: float = 0.4, *, bias: bool = True) -> nn.Linear:
    rng = torch.Generator().manual_seed(rows + cols)
    linear = nn.Linear(cols, rows, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(rows, cols, generator=rng) / cols**0.5)
        linear.weight.mul_(torch.rand(rows, cols, generator=rng) < density)
        linear.weight.copy_(linear.weight.bfloat16())
    return linear


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("backend", ["", "cpu", "portable"])
def test_bias_and_activation_are_fused_rightly(activation: str, backend: str) -> None:
    dense = pruned(37, 50)
    layer = SparseLinear.from_dense(dense, activation=activation, backend=backend)
    x = torch.randn(2, 3, 50) * 3
    expected = reference.activated(nn.functional.linear(x, dense.weight), dense.bias, activation)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("count", [1, 3, 40, 300])
def test_decoding_and_prefill_are_the_same_product(count: int) -> None:
    dense = pruned(70, 130)
    layer = SparseLinear.from_dense(dense)
    x = torch.randn(count, 130)
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-5, atol=1e-5)


def test_results_have_the_type_of_x() -> None:
    layer = SparseLinear.from_dense(pruned(9, 9))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert layer(torch.randn(2, 9, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_autocast_gives_what_it_gives_of_a_dense_layer(compiled: bool) -> None:
    dense = pruned(37, 50)
    layer = SparseLinear.from_dense(dense).trainable()
    forward = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
    for dtype, count in itertools.product((torch.float32, torch.bfloat16, torch.float16), (1, 300)):
        x = torch.randn(count, 50, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            y, expected = forward(x), dense(x)
        assert y.dtype == expected.dtype == torch.bfloat16
        torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
        (of_x,) = torch.autograd.grad(y.sum(), x)
        assert of_x.dtype == dtype


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["", "portable"])
def test_autocast_gives_x_another_type_and_sums_stay_float32(autocast: torch.dtype, backend: str) -> None:
    layer = SparseLinear.from_dense(pruned(70, 130), backend=backend).trainable()
    for dtype, count in itertools.product((torch.float32, torch.float64), (1, 3, 300)):
        x = torch.randn(count, 130, dtype=dtype, requires_grad=True)
        inside = x.to(autocast) if dtype == torch.float32 else x
        y = layer(inside)
        expected = [y, *torch.autograd.grad(y.float().square().sum(), (x, layer.values))]
        with torch.autocast("cpu", autocast):
            y = layer(x)
            found = [y, *torch.autograd.grad(y.float().square().sum(), (x, layer.values))]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["", "portable"])
def test_what_cancels_within_autocasts_type_is_summed_rightly(backend: str) -> None:
    dense = pruned(64, 64)
    with torch.no_grad():
        dense.weight.zero_()
        dense.weight[:, :8], dense.weight[:, 8], dense.bias[:] = 125 / 8, 1.0, -1000.0
    x = torch.ones(300, 64)
    x[:, :8], x[:, 8] = 8.0, 1.5
    layer = SparseLinear.from_dense(dense, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        assert (layer(x) == 1.5).all()
        assert (layer(x[:1]) == 1.5).all()


@pytest.fixture
def _default_type() -> Iterator[None]:
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("_default_type")
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["", "portable"])
def test_torchs_default_type_changes_neither_results_nor_gradients(default: torch.dtype, backend: str) -> None:
    layer = SparseLinear.from_dense(pruned(70, 130), backend=backend).trainable()
    inputs = [torch.randn(count, 130, requires_grad=True) for count in (1, 3, 300)]
    expected = [[y := layer(x), *torch.autograd.grad(y.sum(), (x, layer.values))] for x in inputs]
    torch.set_default_dtype(default)
    found = [[y := layer(x), *torch.autograd.grad(y.sum(), (x, layer.values))] for x in inputs]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.usefixtures("_default_type")
def test_products_are_right_while_another_thread_changes_torchs_default_type() -> None:
    """As transformers does for as long as it makes a model."""
    layer, x, done = SparseLinear.from_dense(pruned(70, 130)), torch.randn(300, 130), threading.Event()
    expected = layer(x), layer(x[:1])

    def change() -> None:
        for dtype in itertools.cycle((torch.bfloat16, torch.float32)):
            torch.set_default_dtype(dtype)
            if done.is_set():
                return

    with ThreadPoolExecutor(1) as other:
        other.submit(change)
        try:
            for _ in range(100):
                torch.testing.assert_close((layer(x), layer(x[:1])), expected, rtol=0, atol=0)
        finally:
            done.set()


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_gradients_are_those_of_the_dense_layer_at_the_kept_places(activation: str) -> None:
    dense = pruned(37, 50)
    layer = SparseLinear.from_dense(dense, activation=activation).trainable()
    x_sparse = torch.randn(4, 5, 50, requires_grad=True)
    x_dense = x_sparse.detach().clone().requires_grad_()
    layer(x_sparse).square().sum().backward()
    reference.activated(dense(x_dense), None, activation).square().sum().backward()
    torch.testing.assert_close(x_sparse.grad, x_dense.grad, rtol=1e-4, atol=1e-5)
    assert dense.bias.grad is not None
    assert layer.bias is not None
    torch.testing.assert_close(layer.bias.grad, dense.bias.grad, rtol=1e-4, atol=1e-5)
    kept = dense.weight != 0
    of_values = layer.values.grad
    assert of_values is not None
    grad_dense = unpack(replace(layer.weight, values_P=of_values)).float()
    assert dense.weight.grad is not None
    torch.testing.assert_close(grad_dense, dense.weight.grad * kept, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 50), (2, 3, 50), (300, 50)])
@pytest.mark.parametrize("backend", ["", "portable"])
def test_results_may_be_changed_in_place(shape: tuple[int, ...], backend: str) -> None:
    """As gated models do (Falcon, Llama 4), and ReLU when it is told to."""
    dense = pruned(37, 50)
    model = nn.Sequential(SparseLinear.from_dense(dense, backend=backend), nn.ReLU(inplace=True))
    x_sparse = torch.randn(shape, requires_grad=True)
    x_dense = x_sparse.detach().clone().requires_grad_()
    model(x_sparse).sum().backward()
    nn.functional.relu(dense(x_dense)).sum().backward()
    torch.testing.assert_close(x_sparse.grad, x_dense.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_the_gradient_of_x_is_that_by_the_stored_weight(dtype: torch.dtype) -> None:
    layer = SparseLinear.from_dense(pruned(37, 50), dtype)
    x, grad = torch.randn(4, 50, requires_grad=True), torch.randn(4, 37)
    layer(x).backward(grad)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, grad @ unpack(layer.weight, torch.float32), rtol=1e-5, atol=1e-5)
    assert layer.values.grad is None


def test_a_step_of_training_moves_kept_weights_only() -> None:
    layer = SparseLinear.from_dense(pruned(16, 24)).trainable()
    before, zeros = unpack(layer.weight).clone(), unpack(layer.weight) == 0
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5)
    layer(torch.randn(8, 24)).square().sum().backward()
    optimiser.step()
    after = unpack(layer.weight)
    assert not after[zeros].any()
    assert (after != before).sum() > 0.9 * (~zeros).sum()


def test_bytes_are_not_trained() -> None:
    with pytest.raises(SparseShapeError, match="int8"):
        SparseLinear.from_dense(pruned(8, 8), torch.int8).trainable()


@pytest.mark.slow
def test_it_compiles_without_a_break_forwards_and_backwards() -> None:
    layer = SparseLinear.from_dense(pruned(20, 30), activation="gelu")
    x = torch.randn(3, 30)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    layer.trainable()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")  # torch 2.11 goes on without a gradient
    compiled(x).sum().backward()
    assert layer.values.grad is not None
    by_compiled = layer.values.grad.clone()
    layer.zero_grad()
    layer(x).sum().backward()
    torch.testing.assert_close(layer.values.grad, by_compiled)


@pytest.mark.slow
class Seen(TorchDispatchMode):
    """Notes the operators that are called while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        del types
        assert not kwargs
        self.names.append(str(func))
        return func(*args)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace.*` is deprecated:DeprecationWarning")
def test_whoever_looks_on_sees_the_operator_and_results_are_the_same() -> None:
    layer, x = SparseLinear.from_dense(pruned(37, 50), activation="silu"), torch.randn(3, 50)
    alone = layer(x)
    with Seen() as seen:
        watched = layer(x)
    with torch.profiler.profile() as told:
        profiled = layer(x)
    traced = torch.jit.trace(layer, x)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        assert layer(fake.from_tensor(x)).shape == (3, 37)
    assert torch.equal(watched, alone)
    assert torch.equal(profiled, alone)
    assert seen.names == ["tandem.sparse_linear.default"]
    assert "tandem::sparse_linear" in {event.name for event in told.events()}
    assert torch.equal(traced(2 * x), layer(2 * x))
    assert layer.to("meta")(x.to("meta")).is_meta


def test_what_lies_elsewhere_than_it_is_said_is_multiplied_rightly() -> None:
    """Tensors whose sign or whose zeros torch keeps apart from what lies in memory."""
    dense = pruned(6, 8)
    layer = SparseLinear.from_dense(dense)
    for count in (1, 300):
        x = torch.randn(count, 8)
        for given in (torch._neg_view(x), torch.complex(x, -x).conj().imag, torch._efficientzerotensor((count, 8))):
            torch.testing.assert_close(layer(given), dense(given + 0.0), rtol=1e-5, atol=1e-5)
    bytes_, x = SparseLinear.from_dense(dense, torch.int8), torch.randn(3, 8)
    expected = bytes_(x)
    bytes_.scales = torch._neg_view(-bytes_.scales)
    torch.testing.assert_close(bytes_(x), expected)
    turned = SparseLinear(layer.weight, torch._neg_view(torch.ones(6)))
    torch.testing.assert_close(turned(x), nn.functional.linear(x, dense.weight) - 1, rtol=1e-5, atol=1e-5)


def test_tracing_leaves_nothing_behind_that_later_products_use() -> None:
    script = """
import torch
from contextlib import suppress
from torch._subclasses.fake_tensor import FakeTensorMode
from tandem.kernels.sparse.format import pack, starts_of, unpack
dense = torch.randn(16, 16).relu().bfloat16()
weight = pack(dense)
with suppress(Exception), FakeTensorMode(allow_non_fake_inputs=True):  # how far it comes is torch's affair
    unpack(weight)
assert torch.equal(unpack(weight), dense)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_layer_takes_all_parts_of_another_weight_or_none() -> None:
    x = torch.randn(2, 64)
    thin, full = (SparseLinear.from_dense(pruned(64, 64, density)) for density in (0.01, 1.0))
    turned = pruned(64, 64, 0.01)
    turned.weight.data = turned.weight.data.flip(0)
    other, before = SparseLinear.from_dense(turned), thin(x)  # of as many values
    own, model = thin.state_dict(), nn.Sequential(thin)
    whole = torch.full_like(own["masks"], -1)
    damaged = {"starts": own["starts"] + torch.tensor([0, 0, 0, 1, 0, 0, 0, 0, 0]), "masks": own["masks"] | 1}
    for state, why in [
        (full.state_dict(), "values is"),
        ({"masks": other.masks}, "starts are not where the bitmap of masks has them"),
        ({"masks": other.masks, "starts": other.starts}, "values are missing, and masks are others than the layer's"),
        ({**own, "masks": [1, 2]}, "masks is list"),
        ({**own, "masks": own["masks"].to_sparse()}, "masks is torch.sparse_coo"),
        ({**own, "values": own["values"].long()}, "values is torch.int64 for torch.bfloat16"),
        ({**own, "masks": own["masks"].double()}, "masks is torch.float64 for torch.int64"),
        ({**own, "values": own["values"].to(torch.int8)}, "values is torch.int8 for torch.bfloat16"),
        ({**own, "scales": torch.ones(64)}, "scales is one too many"),
        ({**own, "starts": damaged["starts"]}, "starts are not where the bitmap of masks has them"),
        ({**own, "masks": damaged["masks"]}, "starts are not where the bitmap of masks has them"),
        ({**own, "starts": nn.Parameter(damaged["starts"], requires_grad=False)}, "starts are not where"),
        ({**own, "masks": whole, "starts": starts_of(whole)}, f"masks keep 4096 of {thin.weight.kept} values"),
    ]:
        for strict in (True, False):
            with pytest.raises(RuntimeError, match=f"a sparse layer: parts of no such weight: {why}"):
                thin.load_state_dict(state, strict=strict)
        with pytest.raises(RuntimeError, match=f"0: parts of no such weight: {why}"):
            model.load_state_dict({f"0.{name}": part for name, part in state.items()}, strict=False)
    assert torch.equal(thin(x), before)
    thin.load_state_dict({name: part.half() if name == "values" else part for name, part in own.items()})
    torch.testing.assert_close(thin(x), before)
    for some in (
        ("values",),
        ("masks", "starts"),
        ("bias",),
        ("masks", "starts", "bias"),
    ):  # as checkpoints of some parameters have
        thin.load_state_dict({name: own[name] for name in some}, strict=False)
        torch.testing.assert_close(thin(x), before)
    thin.load_state_dict({"bias": torch.ones(64)}, strict=False)
    assert torch.equal(thin.bias, torch.ones(64))
    with pytest.raises(RuntimeError, match=r"values is torch\.float16 for torch\.bfloat16"):
        thin.load_state_dict({**own, "values": own["values"].half()}, assign=True)  # it would stay float16
    thin.load_state_dict(own, assign=True)
    assert thin.masks is own["masks"]
    thin.load_state_dict({name: part.int() if name == "starts" else part for name, part in own.items()})
    assert thin.starts.dtype == torch.int64


def test_bytes_are_loaded_with_their_scales_and_as_bytes() -> None:
    layer, x = SparseLinear.from_dense(pruned(16, 24), torch.int8), torch.randn(2, 24)
    own, before = {name: part.clone() for name, part in layer.state_dict().items()}, layer(x)
    for state, why in [
        ({**own, "values": own["values"].long() * 3}, "values is torch.int64 for torch.int8"),
        ({**own, "values": own["values"].bool()}, "values is torch.bool for torch.int8"),
        ({"values": own["values"]}, "scales is missing"),
    ]:
        with pytest.raises(RuntimeError, match=why):
            layer.load_state_dict(state, strict=False)
    layer.load_state_dict({**own, "scales": own["scales"].double()})
    assert torch.equal(layer(x), before)


def test_values_of_a_class_of_their_own_hide_no_contradiction() -> None:
    class Own(torch.Tensor):
        pass

    layer, x = SparseLinear.from_dense(pruned(16, 24)), torch.randn(2, 24)
    own, before = layer.state_dict(), layer(x)
    damaged = {**own, "starts": own["starts"] + 1, "values": own["values"].as_subclass(Own)}
    for state, why in [
        (damaged, "starts are not where the bitmap of masks has them"),
        ({**own, "masks": own["masks"].to("meta")}, "masks cannot be read: Tensor on meta"),
    ]:
        with pytest.raises(RuntimeError, match=why):
            layer.load_state_dict(state)
    assert torch.equal(layer(x), before)


def test_what_a_hook_makes_of_a_state_is_what_is_looked_at() -> None:
    layer = SparseLinear.from_dense(pruned(16, 24))

    def renamed(_: nn.Module, state: dict[str, torch.Tensor], prefix: str, *__: object) -> None:
        for name in [name for name in state if name.startswith(prefix + "old_")]:
            state[prefix + name.removeprefix(prefix + "old_")] = state.pop(name)

    layer.register_load_state_dict_pre_hook(renamed)
    old = {f"old_{name}": part.clone() for name, part in layer.state_dict().items()}
    layer.load_state_dict(old)
    old["old_masks"].fill_(-1)
    with pytest.raises(RuntimeError, match="starts are not where the bitmap of masks has them"):
        layer.load_state_dict(old)
    assert not (layer.masks == -1).all()


def test_parts_that_lie_elsewhere_are_refused() -> None:
    x = torch.randn(2, 64)
    for name in ("masks", "starts", "scales"):
        layer = SparseLinear.from_dense(pruned(64, 64), torch.int8)
        setattr(layer, name, getattr(layer, name).to("meta"))
        with pytest.raises(SparseShapeError, match="on one device"):
            layer(x)


def test_values_that_are_too_few_for_their_strips_are_refused() -> None:
    weight = pack(torch.ones(64, 64))
    layer = SparseLinear(replace(weight, values_P=weight.values_P[:100].clone()))
    for count in (1, 300):
        with pytest.raises(SparseShapeError, match="of 36 values whose strips have 4096"):
            layer(torch.ones(count, 64))


def test_it_is_called_as_a_dense_layer_is() -> None:
    layer, x = SparseLinear.from_dense(pruned(6, 8)), torch.randn(3, 8)
    assert torch.equal(layer(input=x), layer(x))


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_refused(layout: torch.layout) -> None:
    x = torch.nested.nested_tensor([torch.ones(2, 8), torch.ones(3, 8)], layout=layout)
    with pytest.raises(SparseShapeError, match="x as a nested tensor"):
        SparseLinear.from_dense(pruned(6, 8))(x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script.*` is deprecated:DeprecationWarning")
def test_a_compiled_layer_refuses_a_tangent_too() -> None:
    layer, x = SparseLinear.from_dense(pruned(6, 8)), torch.randn(3, 8)
    compiled = torch.compile(layer, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
    with forward_ad.dual_level(), pytest.raises(SparseShapeError, match="derivative"):
        compiled(forward_ad.make_dual(x, torch.ones_like(x)))
    torch.testing.assert_close(compiled(x), layer(x))


def test_the_operators_keep_torchs_rules() -> None:
    ops = torch.ops.tandem
    layer, x = SparseLinear.from_dense(pruned(20, 30)).trainable(), torch.randn(2, 30)
    eight = SparseLinear.from_dense(pruned(20, 30, bias=False), torch.int8)
    grad = torch.randn(2, 20)
    of_layer, of_eight = ((one.masks, one.values, one.starts, one.scales) for one in (layer, eight))
    cases = [
        (ops.sparse_linear, (x.clone().requires_grad_(), *of_layer, layer.bias, 20, 30, "none", "")),
        (ops.sparse_linear, (x, *of_eight, None, 20, 30, "silu", "portable")),
        (ops.sparse_linear_grad_x, (grad, *of_eight, 20, 30)),
        (ops.sparse_linear_grad_values, (grad, x, layer.masks, layer.values.detach(), 20, 30)),
    ]
    for operator, arguments in cases:
        told = torch.library.opcheck(operator.default, arguments)
        assert set(told.values()) == {"SUCCESS"}, operator


def test_what_does_not_fit_is_refused() -> None:
    layer = SparseLinear.from_dense(pruned(8, 16))
    for x in (torch.randn(2, 15), torch.ones(2, 16, dtype=torch.int64), torch.tensor(1.0)):
        with pytest.raises(SparseShapeError, match="16 columns"):
            layer(x)
    for wrong in (None, [[1.0] * 16], torch.ones(2, 16).numpy()):
        with pytest.raises(SparseShapeError, match="as_tensor"):
            layer(wrong)
    with pytest.raises(SparseShapeError, match="meta"):
        layer(torch.randn(2, 16, device="meta"))
    for x in (torch.ones(2, 16).to_sparse(), torch.ones(2, 16).to_mkldnn()):
        with pytest.raises(SparseShapeError, match="to_dense"):
            layer(x)
    with pytest.raises(SparseShapeError, match="bias"):
        SparseLinear(layer.weight, torch.zeros(7))
    with pytest.raises(SparseShapeError, match="relu, silu"):
        SparseLinear(layer.weight, activation="softmax")


@pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning")  # of torch's own, in making its first tangent
@pytest.mark.parametrize("part", ["values", "bias", "x"])
def test_a_tangent_is_refused_where_torch_would_give_zeros(part: str) -> None:
    layer, x = SparseLinear.from_dense(nn.Linear(16, 8)), torch.ones(3, 16)
    at = {"x": x, **layer.state_dict()}[part]

    def of_part(tensor: torch.Tensor) -> torch.Tensor:
        return layer(tensor) if part == "x" else torch.func.functional_call(layer, {part: tensor}, (x,))

    def nested(tensor: torch.Tensor) -> torch.Tensor:
        return torch.func.jvp(lambda factor: factor * of_part(tensor), (torch.ones(8),), (torch.ones(8),))[1]

    for transformed in (of_part, nested, lambda t: torch.vmap(lambda _: of_part(t))(torch.ones(2))):
        with pytest.raises(SparseShapeError, match="reverse mode"):
            torch.func.jvp(transformed, (at,), (at,))
    with forward_ad.dual_level(), pytest.raises(SparseShapeError, match="reverse mode"):
        of_part(forward_ad.make_dual(at, at))


@pytest.mark.filterwarnings("ignore:.*performance drop:UserWarning")  # vmap goes one by one
def test_transforms_of_torch_func_that_differentiate_are_refused_and_vmap_is_not() -> None:
    layer, x = SparseLinear.from_dense(pruned(8, 16)), torch.ones(3, 16)
    torch.testing.assert_close(torch.vmap(layer)(x), layer(x))
    of_sum = torch.func.grad(lambda x: layer(x).sum())
    for transformed in (of_sum, torch.vmap(of_sum), torch.func.jacrev(layer), torch.func.jacrev(torch.vmap(layer))):
        with pytest.raises(SparseShapeError, match=r"torch\.autograd\.grad"):
            transformed(x)


def test_a_second_derivative_is_refused() -> None:
    layer, x = SparseLinear.from_dense(pruned(8, 16)).trainable(), torch.ones(3, 16, requires_grad=True)
    for part in (x, layer.values):
        (first,) = torch.autograd.grad(layer(x).square().sum(), part, create_graph=True)
        with pytest.raises(SparseShapeError, match="second derivative"):
            first.sum().backward()


def test_a_backend_that_cannot_run_here_is_named_with_the_reason() -> None:
    layer = SparseLinear.from_dense(pruned(8, 16))
    with pytest.raises(UnknownPluginError, match="nope"):
        SparseLinear(layer.weight, backend="nope")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="cuda"):
            SparseLinear(layer.weight, backend="cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_a_model_that_changes_its_type_keeps_its_packed_weights(dtype: torch.dtype) -> None:
    layer = SparseLinear.from_dense(pruned(16, 24), dtype)
    before, x = unpack(layer.weight), torch.randn(3, 24)
    expected = layer(x)
    for change in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        layer.to(change)
        assert layer.bias is not None
        assert layer.bias.dtype == change
        assert torch.equal(unpack(layer.weight), before)
        torch.testing.assert_close(layer(x), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("rows", "cols"), [(5, 0), (0, 5), (0, 0)])
def test_layers_without_rows_or_columns_give_their_bias(rows: int, cols: int) -> None:
    layer = SparseLinear(pack(torch.zeros(rows, cols)), torch.arange(float(rows))).trainable()
    x = torch.randn(2, 3, cols, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, torch.arange(float(rows)).expand(2, 3, rows))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


def test_parts_that_do_not_fit_together_are_refused_before_a_kernel_reads_them() -> None:
    good = pack(torch.ones(9, 16), torch.int8)
    assert good.scales_M is not None
    bad = [
        replace(good, rows=40),
        replace(good, cols=100),
        replace(good, masks_ST=good.masks_ST.int()),
        replace(good, values_P=good.values_P[:3]),
        replace(good, values_P=good.values_P.float(), scales_M=None),
        replace(good, scales_M=good.scales_M.bfloat16()),
        replace(good, scales_M=None),
        replace(good, starts_S=good.starts_S[:1]),
        replace(good, masks_ST=good.masks_ST.repeat(1, 2)[:, ::2]),
    ]
    for weight in bad:
        with pytest.raises(SparseShapeError, match="do not fit together"):
            SparseLinear(weight)(torch.randn(1, weight.cols))


def test_empty_tensors_give_empty_results() -> None:
    layer = SparseLinear.from_dense(pruned(8, 16))
    assert layer(torch.randn(0, 16)).shape == (0, 8)
    assert layer(torch.randn(2, 0, 16)).shape == (2, 0, 8)
