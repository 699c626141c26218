"""What is refused because it could never run, or would never be read."""

import pytest

from tandem.core import plug
from tandem.core.errors import ConfigError, ImpossibleDemandError
from tandem.share.deciding import policy
from tandem.share.model import After, Gpu, Job, Need, Node, Part
from tandem.share.scheduler.admission import check, check_options, never

BARE = Node("n", 4000, 24_105, cores=(0, 1, 2, 3))
WITH_GPUS = Node("g", 4000, 24_105, gpus=(Gpu(0, "a100", 40_960), Gpu(1, "a100", 40_960)))


@pytest.mark.parametrize(
    ("need", "node", "words"),
    [
        (Need(1000, gpus=64), BARE, "64 whole GPUs on one node; allowed: no GPU: there is none here; ask for none"),
        (Need(1000, gpu_milli=500), BARE, "0.5 of a GPU on one node; allowed: no GPU: there is none here"),
        (Need(1000, gpus=64), WITH_GPUS, "allowed: at most 2 whole GPUs on a node; ask for less"),
        (Need(500), BARE, "0.5 cores on one node; allowed: whole cores (jobs are pinned here); ask for 1"),
        (Need(3500), BARE, "ask for 4"),
        (Need(1000, 943_718_400), BARE, "1 core, 900TiB of memory on one node; allowed: at most 24105 MiB of memory"),
        (Need(999_999_999_000), BARE, "999999999 cores on one node; allowed: at most 4 cores"),
        (Need(1000, gpus=1, gpu_mem_mib=81_920), WITH_GPUS, "allowed: at most 40960 MiB of GPU memory"),
    ],
)
def test_what_is_lacking_is_said_in_plain_numbers(need: Need, node: Node, words: str) -> None:
    with pytest.raises(ImpossibleDemandError) as caught:
        check(Job(id=1, parts=(Part(need),)), [node], ())
    assert words in str(caught.value)
    assert "e+" not in str(caught.value)


def test_who_can_never_run_is_found_with_those_who_wait_for_them() -> None:
    small, large = (Part(Need(1000)),), (Part(Need(5000)),)
    jobs = [
        Job(1, small),
        Job(2, large),
        Job(3, small, after=(After(1),)),
        Job(4, small, after=(After(1), After(2, ok=False))),
        Job(5, small, after=(After(4),)),
    ]
    assert never(jobs, [BARE]) == {
        2: "asks for 5 cores on one node (at most 4 cores on a node)",
        4: "waits for job 2, which can never run",
        5: "waits for job 4, which can never run",
    }
    assert never(jobs, [Node("m", 5000, 1)]) == {}


@pytest.mark.parametrize("name", plug.names("share.policies"))
def test_every_policy_declares_its_options(name: str) -> None:
    declared = policy.load(name).OPTIONS  # type: ignore[attr-defined]  # plug-ins from elsewhere may have none
    check_options([name], dict.fromkeys([*declared, "quotes"], 1))
    with pytest.raises(ConfigError, match=f"option 'foo' of the policy {name}; allowed: quotes"):
        check_options([name], {"foo": 1})


def test_an_option_of_another_policy_is_said_to_be() -> None:
    with pytest.raises(ConfigError, match="it is an option of las"):
        check_options(["hybrid"], {"las_step_s": 2.5})
    check_options(["hybrid", "las"], {"las_step_s": 2.5})


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("hybrid", "hybrid_safe", 7, "a whole number from 0 to 1"),
        ("hybrid", "hybrid_safe", -1, "a whole number from 0 to 1"),
        ("hybrid", "hybrid_safe", 0.5, "a whole number from 0 to 1"),
        ("hybrid", "hybrid_window", 0, "a whole number from 1 to 100000"),
        ("hybrid", "hybrid_window", 100_001, "a whole number from 1 to 100000"),
        ("hybrid", "hybrid_cores_per_gpu", -0.5, "a number of at least 0"),
        ("las", "las_step_s", 0, "a number of at least 0.001"),
        ("share", "quotes", -1, "a whole number of at least 0"),
    ],
)
def test_an_option_has_a_number_that_it_can_have(name: str, option: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"option {option}={value:g}; allowed: {allowed};"):
        check_options([name], {option: value})
