"""Which backend computes, what is said of those that do not, and threads that survive whatever starts them."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tandem.kernels.sparse import choosing
from tandem.kernels.sparse.backends import cpu
from tandem.kernels.sparse.format import pack
from tandem.kernels.sparse.mistakes import BackendError


def test_what_the_processor_lacks_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "paths", lambda: ["scalar"])
    with caplog.at_level(logging.INFO):
        assert cpu.best_path.__wrapped__() == "scalar"
    assert "sparse products use scalar; this processor lacks avx512 and avx2" in caplog.text


def test_without_the_extension_plain_torch_computes_and_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_native", lambda: None)
    with caplog.at_level(logging.INFO):
        assert choosing.best.__wrapped__("cpu") == "portable"
    assert "not cpu: tandem was installed without its native parts" in caplog.text
    with pytest.raises(BackendError, match=r"'cpu', but tandem was installed without .*; allowed: .*portable"):
        choosing.backend.__wrapped__("cpu")


def test_a_device_that_nobody_serves_is_refused() -> None:
    with pytest.raises(BackendError, match="'meta'; allowed: cuda, cpu"):
        choosing.best.__wrapped__("meta")


def test_a_backend_for_another_device_is_refused_before_it_reads_an_address() -> None:
    assert choosing.for_device("cpu", "cpu") is choosing.backend("cpu")
    assert choosing.for_device("portable", "cuda") is choosing.backend("portable")
    with pytest.raises(BackendError, match="'cpu', which computes on 'cpu', and tensors on 'cuda'; allowed: portable"):
        choosing.for_device("cpu", "cuda")


def test_many_threads_may_multiply_at_once() -> None:
    weight, x = pack(torch.randn(600, 300)), torch.randn(3, 300)
    torch.set_num_threads(3)
    expected = cpu.forward(weight, x)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: cpu.forward(weight, x), range(40)))
    assert all(torch.equal(result, expected) for result in results)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    weight, x = pack(torch.randn(600, 300)), torch.randn(3, 300)
    torch.set_num_threads(2)
    expected = cpu.forward(weight, x)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(cpu.forward(weight, x), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
