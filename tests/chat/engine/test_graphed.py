"""Steps that are recorded: shapes rounded up, slots refilled, recordings that fail; on a GPU, graphs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import torch

from tandem.chat import forward
from tandem.chat.drawing import batch_of
from tandem.chat.engine import generate as generation
from tandem.chat.engine.choosing import Way, decoder_for
from tandem.chat.engine.errors import GenerationError
from tandem.chat.engine.generate import Sampling, generate
from tandem.chat.engine.graphed import UNRECORDED, GraphedLlamaDecoder, Replay, why_not
from tandem.chat.engine.llama import LlamaDecoder
from tests.chat.small import model_of
from tests.conftest import requires

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from tandem.chat.engine.generate import Rollout

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8], [9], [1, 2]]


def drawn(model: nn.Module, way: Way = "auto", temperature: float = 1.0) -> Rollout:
    sampling = Sampling(max_new_tokens=20, eos_id=256, temperature=temperature)
    rng = torch.Generator().manual_seed(0)
    return generate(model, PROMPTS, sampling, group=3, generator=rng, pad_id=257, slots=5, way=way)


class Recorder:
    """Does again what it was given, as a graph would, into the same memory."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, function: Callable[[], Tensor]) -> Replay:
        results: list[Tensor] = []  # what is recorded has not run yet

        def replay() -> Tensor:
            self.replays += 1
            results.append(function())
            return results[0].copy_(results[-1])

        return replay


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_recorded_says_what_steps_say(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recorder = model_of("llama").to(dtype), Recorder()
    plain = drawn(model, "llama")
    monkeypatch.setattr(
        generation, "decoder_for", lambda one, room, way: GraphedLlamaDecoder(LlamaDecoder(one, room), recorder)
    )
    ours = drawn(model)
    assert recorder.replays > 10
    with torch.no_grad():
        trained_BT = forward.logprobs(model, batch_of(ours))
    torch.testing.assert_close(ours.logps_BT, trained_BT, atol=1e-4 if dtype == torch.float32 else 0.25, rtol=0)
    if dtype == torch.float32:
        assert torch.equal(ours.tokens_BT, plain.tokens_BT)


def test_a_recording_that_fails_is_told_once_and_steps_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(function: Callable[[], Tensor]) -> Replay:
        raise RuntimeError(str(function))

    model = model_of("llama")
    plain = drawn(model, "llama")
    monkeypatch.setattr(
        generation, "decoder_for", lambda one, room, way: GraphedLlamaDecoder(LlamaDecoder(one, room), fails)
    )
    with caplog.at_level(logging.WARNING):
        assert torch.equal(drawn(model).logps_BT, plain.logps_BT)
    assert [record.message[:40] for record in caplog.records] == ["steps of decoding are not recorded as CU"]


def test_there_are_no_graphs_on_a_processor() -> None:
    model = model_of("llama")
    assert why_not(LlamaDecoder(model, 8)) == "it is not on a GPU"
    with pytest.raises(GenerationError, match="on a GPU, with plain linear layers"):
        decoder_for(model, 8, "graphed")


@requires("gpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_say_what_steps_say(dtype: torch.dtype) -> None:
    model = model_of("llama").to("cuda", dtype)
    assert isinstance(decoder_for(model, 8), GraphedLlamaDecoder)
    plain, ours = drawn(model, "llama"), drawn(model, "graphed")
    if dtype == torch.float32:
        assert torch.equal(ours.tokens_BT, plain.tokens_BT)
        torch.testing.assert_close(ours.logps_BT, plain.logps_BT, atol=1e-4, rtol=0)
    again = drawn(model, "graphed")
    assert torch.equal(ours.tokens_BT, again.tokens_BT)
    assert torch.equal(ours.logps_BT, again.logps_BT)


@requires("gpu")
def test_graphs_are_what_is_replayed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(1), replay(graph)))
    with caplog.at_level(logging.WARNING):
        rollout = drawn(model_of("llama").to("cuda"))
    assert not caplog.records
    assert len(replays) > UNRECORDED
    assert rollout.tokens_BT.device.type == "cpu"


@requires("gpu")
def test_weights_that_have_changed_are_seen() -> None:
    model, host = model_of("llama").to("cuda"), model_of("llama", seed=3)
    drawn(model)
    model.load_state_dict(host.state_dict())
    torch.testing.assert_close(drawn(model, temperature=0).tokens_BT, drawn(host, temperature=0).tokens_BT)
