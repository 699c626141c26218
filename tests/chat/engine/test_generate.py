"""Generation against plain forward passes of Hugging Face's models, one row at a time."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.chat.engine.choosing import Way
from tandem.chat.engine.generate import Rollout, Sampling, generate
from tests.chat.engine.families import EOS, FAMILIES, PAD, one_by_one, plain_logps, prompts_of, shared, tiny

NATIVE: list[tuple[str, Way]] = [("llama", "native"), ("qwen2", "native")]
"""In float32 alone; the others take any type."""
WAYS: list[tuple[str, Way]] = [*((family, "generic") for family in FAMILIES), ("llama", "llama"), ("qwen2", "llama")]
WIDE = [*WAYS, *NATIVE]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def responses(rollout: Rollout) -> list[list[int]]:
    spans = zip(rollout.tokens_BT.tolist(), rollout.prompt_lengths_B.tolist(), rollout.lengths_B.tolist(), strict=True)
    return [tokens[start:end] for tokens, start, end in spans]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("family", "way"), WIDE)
def test_log_probabilities_are_those_of_the_training_forward_pass(family: str, way: Way, temperature: float) -> None:
    model = tiny(family)
    sampling = Sampling(max_new_tokens=12, temperature=temperature, eos_id=EOS)
    prompts = prompts_of([5, 1, 9])
    rollout = generate(model, prompts, sampling, group=4, generator=rng(), pad_id=PAD, slots=5, way=way)
    assert torch.allclose(rollout.logps_BT, plain_logps(model, rollout, temperature), atol=1e-5)
    assert (rollout.logps_BT < 0).sum() == (rollout.lengths_B - rollout.prompt_lengths_B).sum()
    assert model.training
    assert all(module.training for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "way"), WIDE)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    group=st.integers(1, 3),
    slots=st.integers(1, 5),
    longest=st.integers(1, 6),
    eos_id=st.integers(1, 6),
    seed=st.integers(0, 1000),
    settings_of=st.sampled_from([{}, {"temperature": 0.0}, {"temperature": 1.7, "top_k": 4}, {"top_p": 0.8}]),
)
@settings(max_examples=15)
def test_responses_are_those_of_each_row_alone_whatever_runs_beside_it(
    family: str,
    way: Way,
    lengths: list[int],
    group: int,
    slots: int,
    longest: int,
    eos_id: int,
    seed: int,
    settings_of: dict[str, Any],
) -> None:
    model, prompts = shared(family, torch.float32 if way == "native" else torch.float64), prompts_of(lengths, 7, seed)
    sampling = Sampling(max_new_tokens=longest, eos_id=eos_id, **settings_of)
    rollout = generate(model, prompts, sampling, group=group, generator=rng(seed), pad_id=PAD, slots=slots, way=way)
    numbers = torch.rand(len(prompts) * group, longest, generator=rng(seed), dtype=torch.float64).tolist()
    assert responses(rollout) == one_by_one(model, prompts, sampling, group, numbers)
    assert rollout.ended_B.tolist() == [response[-1] == eos_id for response in responses(rollout)]


@pytest.mark.parametrize("way", ["generic", "llama", "native"])
def test_eos_belongs_to_the_response_and_nothing_comes_after_it(way: Way) -> None:
    sampling = Sampling(max_new_tokens=20, eos_id=EOS, temperature=1.5)
    prompts = prompts_of([4, 7])
    rollout = generate(tiny("llama"), prompts, sampling, group=8, generator=rng(), pad_id=PAD, way=way)
    told = rollout.lengths_B.tolist()
    assert 0 < rollout.ended_B.sum() < 16
    for row, tokens in enumerate(rollout.tokens_BT.tolist()):
        start, end = int(rollout.prompt_lengths_B[row]), told[row]
        assert tokens[:start] == prompts[row // 8]
        assert tokens[end:] == [PAD] * (len(tokens) - end)
        assert (tokens[end - 1] == EOS) == bool(rollout.ended_B[row])
        assert EOS not in tokens[start : end - 1]
        assert bool(rollout.ended_B[row]) or end - start == 20
        assert rollout.logps_BT[row, end:].count_nonzero() == 0
    assert rollout.tokens_BT.shape[1] == max(told)


def test_the_same_generator_gives_the_same_rollout_and_slots_do_not_matter() -> None:
    model, sampling = tiny("llama", torch.float64), Sampling(max_new_tokens=10, eos_id=EOS)
    rollouts = [
        generate(model, prompts_of([3, 5, 2]), sampling, group=3, generator=rng(7), pad_id=PAD, slots=slots)
        for slots in (64, 64, 2, 1)
    ]
    assert all(torch.equal(rollouts[0].tokens_BT, other.tokens_BT) for other in rollouts[1:])
    assert torch.equal(rollouts[0].logps_BT, rollouts[1].logps_BT)


def test_by_native_code_a_row_is_the_same_to_the_last_bit_whatever_runs_beside_it() -> None:
    model, sampling = tiny("llama"), Sampling(max_new_tokens=10, eos_id=EOS)
    rollouts = []
    for slots, threads in ((64, 1), (3, 1), (2, 2), (1, 1)):
        torch.set_num_threads(threads)
        rollouts.append(
            generate(
                model, prompts_of([5] * 3), sampling, group=3, generator=rng(7), pad_id=PAD, slots=slots, way="native"
            )
        )
    torch.set_num_threads(1)
    for other in rollouts[1:]:
        assert torch.equal(rollouts[0].tokens_BT, other.tokens_BT)
        assert torch.equal(rollouts[0].logps_BT, other.logps_BT)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_by_native_code_torchs_default_type_changes_nothing(default: torch.dtype) -> None:
    model, sampling, before = tiny("llama"), Sampling(max_new_tokens=10, eos_id=EOS), torch.get_default_dtype()

    def drawn() -> Rollout:
        return generate(model, prompts_of([5] * 3), sampling, group=3, generator=rng(7), pad_id=PAD, way="native")

    expected = drawn()
    try:
        torch.set_default_dtype(default)
        rollout = drawn()
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(rollout.tokens_BT, expected.tokens_BT)
    assert torch.equal(rollout.logps_BT, expected.logps_BT)


def test_rows_of_a_group_differ_and_greedy_ones_do_not() -> None:
    model = tiny("llama")
    drawn, greedy = (
        generate(
            model,
            prompts_of([4]),
            Sampling(max_new_tokens=8, temperature=temperature, eos_id=EOS),
            group=6,
            generator=rng(),
            pad_id=PAD,
        )
        for temperature in (1.0, 0.0)
    )
    assert len(set(map(tuple, responses(drawn)))) > 1
    assert len(set(map(tuple, responses(greedy)))) == 1
    assert torch.allclose(greedy.logps_BT, plain_logps(model, greedy, 1.0), atol=1e-5)


def test_greedy_generation_leaves_the_generator_alone() -> None:
    generator = rng()
    before = generator.get_state()
    greedily = Sampling(max_new_tokens=3, temperature=0.0, eos_id=EOS)
    generate(tiny("gpt2"), [[1]], greedily, generator=generator, pad_id=PAD)
    assert torch.equal(before, generator.get_state())


def test_tokens_are_told_as_they_are_drawn() -> None:
    told: dict[int, list[int]] = {row: [] for row in range(6)}

    def listen(rows: list[int], tokens: list[int]) -> None:
        for row, token in zip(rows, tokens, strict=True):
            told[row].append(token)

    rollout = generate(
        tiny("llama"),
        prompts_of([3, 5]),
        Sampling(max_new_tokens=9, eos_id=EOS),
        group=3,
        generator=rng(),
        pad_id=PAD,
        slots=4,
        on_tokens=listen,
    )
    assert list(told.values()) == responses(rollout)


@pytest.mark.parametrize(("family", "way"), WAYS)
def test_bfloat16_models_generate_with_log_probabilities_in_float32(family: str, way: Way) -> None:
    model = tiny(family, torch.bfloat16)
    sampling = Sampling(max_new_tokens=8, eos_id=EOS)
    rollout = generate(model, prompts_of([4, 2]), sampling, group=3, generator=rng(), pad_id=PAD, way=way)
    assert rollout.logps_BT.dtype == torch.float32
    assert torch.isfinite(rollout.logps_BT).all()
    # Both sides round to 8 bits, in different orders.
    assert (rollout.logps_BT - plain_logps(model, rollout, 1.0)).abs().max() < 0.2
    assert (rollout.logps_BT - plain_logps(model, rollout, 1.0)).abs().mean() < 0.02


@pytest.mark.parametrize(("family", "way"), WIDE)
def test_what_an_optimizer_changed_is_seen_by_the_next_rollout(family: str, way: Way) -> None:
    model = tiny(family)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sampling = Sampling(max_new_tokens=6, eos_id=EOS)
    for _ in range(3):
        rollout = generate(model, prompts_of([4, 2]), sampling, group=2, generator=rng(), pad_id=PAD, way=way)
        before_BT = plain_logps(model, rollout, 1.0)
        assert torch.allclose(rollout.logps_BT, before_BT, atol=1e-5)
        model(input_ids=rollout.tokens_BT, labels=rollout.tokens_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert (plain_logps(model, rollout, 1.0) - before_BT).abs().max() > 0.01


@pytest.mark.parametrize("way", ["generic", "llama", "native"])
def test_rollouts_made_in_inference_mode_can_be_trained_on(way: Way) -> None:
    model = tiny("llama")
    with torch.inference_mode():
        sampling = Sampling(max_new_tokens=6, eos_id=EOS)
        rollout = generate(model, prompts_of([4]), sampling, group=2, generator=rng(), pad_id=PAD, way=way)
    logps_BTV = model(input_ids=rollout.tokens_BT).logits.log_softmax(dim=-1)
    logps_BTV.gather(2, rollout.tokens_BT[..., None]).sum().backward()
    assert all(parameter.grad is not None and not parameter.is_inference() for parameter in model.parameters())


def test_no_prompts_give_no_rows() -> None:
    sampling = Sampling(max_new_tokens=6, eos_id=EOS)
    rollout = generate(tiny("llama"), [], sampling, group=2, generator=rng(), pad_id=PAD)
    assert rollout.tokens_BT.shape == (0, 0)
    assert rollout.lengths_B.tolist() == []


def test_a_response_may_fill_the_context() -> None:
    sampling = Sampling(max_new_tokens=8, eos_id=EOS, temperature=0.0)
    rollout = generate(tiny("opt"), prompts_of([40]), sampling, generator=rng(), pad_id=PAD)
    assert math.isclose(
        float(rollout.logps_BT[0, 40]), float(plain_logps(tiny("opt"), rollout, 1.0)[0, 40]), abs_tol=1e-5
    )
