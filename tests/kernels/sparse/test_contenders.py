"""Ways to multiply: all give the same product, from every copy, and copies outgrow the caches."""

import pytest
import torch

from tandem.core import machine
from tandem.kernels.sparse import contenders
from tandem.kernels.sparse.format import unpack


def test_every_contender_multiplies_rightly_by_each_of_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    dense_MK, x_NK = (torch.randn(*shape, generator=rng).bfloat16().float() for shape in ((40, 48), (2, 48)))
    monkeypatch.setattr(contenders, "_MOST_COPIES", 2)
    monkeypatch.setattr(torch, "randn", lambda *shape: x_NK if shape == x_NK.shape else None)
    weights = contenders.pruned(dense_MK, [0.5], [torch.bfloat16, torch.int8])
    assert [weight.copies[0].density for weight in weights] == [pytest.approx(0.5, abs=0.01)] * 2
    found = contenders.Dense(dense_MK).contenders(2)
    assert {"F.linear bf16", "F.linear fp16", "F.linear fp32", "fbgemm int8"} <= {one.name for one in found}
    cases = [(one, dense_MK) for one in found]
    cases += [(weight.contender(2), unpack(weight.copies[0]).float()) for weight in weights]
    for one, weight_MK in cases:
        expected = x_NK @ weight_MK.T
        share = 0.04 if one.name == "fbgemm int8" else 0.005  # that one rounds weights and x to 256 steps
        allowed = share * (x_NK.abs() @ weight_MK.abs().T)
        most = 0.05 if one.name == "fbgemm int8" else 0.0  # and its sums of two saturate where there is no VNNI
        for _ in range(3):  # both copies, and the first once more
            assert float(((one.run().float() - expected).abs() > allowed).float().mean()) <= most, one.name


def test_what_does_not_depend_on_the_rows_of_x_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "_MOST_COPIES", 3)
    dense = contenders.Dense(torch.randn(16, 16))
    dense.contenders(1, clock=lambda: 0.0)  # nothing is hopeless where nothing takes time
    made = [id(copy) for copies in dense._plain.values() for copy in copies]
    assert len(made) == 9
    dense.contenders(4, clock=lambda: 0.0)
    assert [id(copy) for copies in dense._plain.values() for copy in copies] == made


def test_what_is_hopeless_keeps_one_copy_and_is_timed_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "_MOST_COPIES", 3)
    now_s = 0.0

    def linear(x_NK: torch.Tensor, weight_MK: torch.Tensor) -> torch.Tensor:
        nonlocal now_s
        now_s += 1.0 if weight_MK.dtype == torch.float16 else 0.1
        return x_NK @ weight_MK.T

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    dense = contenders.Dense(torch.ones(8, 8))
    monkeypatch.setattr(dense, "_onednn", dense._linear)
    monkeypatch.setattr(dense, "_mkl", dense._linear)
    monkeypatch.setattr(dense, "_int8", lambda x_NK, number: dense._linear(x_NK, torch.float32, number))
    seldom = {one.name: one.seldom for one in dense.contenders(1, clock=lambda: now_s)}
    assert seldom == {name: "fp16" in name for name in seldom}
    assert len(seldom) == 10
    assert [len(copies) for copies in dense._plain.values()] == [3, 1, 3]


def test_copies_fill_more_than_four_caches() -> None:
    cache_bytes = max(machine.last_level_cache_bytes(), 1 << 20)
    for size_bytes in (cache_bytes // 100, cache_bytes, 100 * cache_bytes):
        assert contenders.number_of_copies(size_bytes) * size_bytes > 4 * cache_bytes


@pytest.mark.parametrize(
    ("shape", "asked", "kept", "name"),
    [
        ((1, 1), 0.5, 1, "bf16 0%"),
        ((1, 1), 1.0, 0, "bf16 100%"),
        ((1, 3), 0.5, 1, "bf16 66.6667%"),
        ((64, 64), 0.995, 20, "bf16 99.5%"),
        ((1, 3), 0.999, 0, "bf16 100%"),
        ((64, 64), 1.0, 0, "bf16 100%"),
        ((64, 64), 0.6, 4096 - 2458, "bf16 60%"),
        ((64, 64), 0.605, 4096 - 2478, "bf16 60.5%"),
        ((10, 10), 0.0, 100, "bf16 0%"),
        ((64, 64), 0.5551, 4096 - 2274, "bf16 55.51%"),
    ],
)
def test_shares_of_zeros_are_what_their_names_say(shape: tuple[int, int], asked: float, kept: int, name: str) -> None:
    (one,) = contenders.pruned(torch.randn(shape), [asked], [torch.bfloat16])
    assert (one.copies[0].kept, one.name) == (kept, name)
    assert one.zeros == pytest.approx(1 - kept / (shape[0] * shape[1]), abs=0.005)


def test_the_memory_of_all_copies_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "cache_bytes", lambda: 1 << 20)
    shape, zeros, kinds = (256, 512), [0.5, 0.8], [torch.bfloat16, torch.int8]
    weights = contenders.pruned(torch.randn(shape), zeros, kinds)
    dense = contenders.Dense(torch.randn(shape))
    found = dense.contenders(1, clock=lambda: 0.0)
    taken = sum(sum(part.nbytes for part in one.parts) for one in weights)
    taken += sum(one.size_bytes * contenders.number_of_copies(one.size_bytes) for one in found)
    foreseen = contenders.most_bytes(*shape, zeros, kinds)
    assert len(found) <= 10  # MKL and oneDNN cannot do all types everywhere
    assert 0.6 * foreseen < taken < 1.1 * foreseen
