"""What every strategy promises, of one rank where it can be had without others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tandem.core import plug
from tandem.learn import strategy

SHARING = [name for name in plug.names(strategy.FAMILY) if name != "single"]
"""Strategies of several ranks; that one process is none for two, tests/learn/test_ranks.py looks at."""

LEARNS = """
import sys, torch
from tandem.learn import sharding, strategy
from tandem.learn.joining import joined

def model_of():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))

x_BD = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))

def learns(how, ranks):
    how.check(ranks)
    schedule = strategy.Schedule(learning_rate=0.1)
    learning = how.learning(model_of(), ranks, schedule)

    def step(learning, number):
        rows = ranks.share(len(x_BD))
        loss = sharding.through(learning.model, lambda model: model(x_BD[rows]).square().sum()) / len(x_BD)
        loss.backward()
        return ranks.sums(loss=float(loss.detach()))["loss"], learning.optimiser.step(number)

    plain, adam = model_of(), None
    adam = torch.optim.AdamW(plain.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)
    for number in range(3):
        loss, norm = step(learning, number)
        wanted = plain(x_BD).square().mean()
        wanted.backward()
        wanted_norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        torch.testing.assert_close(torch.tensor([loss, norm]), torch.stack([wanted.detach(), wanted_norm]).float())
    with learning.whole() as whole:
        for ours, theirs in zip(whole.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.detach(), theirs.detach())
        before = [parameter.detach().clone() for parameter in whole.parameters()]
    kept = sharding.gathered(
        {"model": learning.model.state_dict(keep_vars=True), "optimiser": learning.optimiser.state_dict()}, keep=True
    )
    kept = torch.utils._pytree.tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, kept)
    step(learning, 3)
    again = how.learning(model_of(), ranks, schedule)
    sharding.load(again.model, kept["model"])
    again.optimiser.load_state_dict(kept["optimiser"])
    step(again, 3)
    with learning.whole() as one, again.whole() as other:
        assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), before, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    frozen = how.frozen(model_of(), ranks)
    torch.manual_seed(0)
    torch.testing.assert_close(sharding.through(frozen, lambda model: model(x_BD)), model_of()(x_BD))

with joined() as group, group.telling():
    for name in sys.argv[1:]:
        try:
            learns(strategy.load(name), group.ranks)
        except BaseException as error:
            error.add_note("strategy " + name)
            raise
"""


@pytest.mark.slow
@pytest.mark.parametrize(("names", "size"), [(["single"], 0), (SHARING, 1), (SHARING, 2)], ids=["alone", "1", "2"])
def test_it_learns_what_adamw_learns_and_goes_on_from_a_whole_state(names: list[str], size: int) -> None:
    """All in the same processes, one after the other: most of what each takes is importing torch."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), "--no-python"]
    command = [sys.executable, *launcher, sys.executable] if size else [sys.executable]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-c", LEARNS, *names], env=env, check=False, capture_output=True, text=True, timeout=300.0
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_without_deepspeed_the_extra_that_brings_it_is_named(name: str) -> None:
    code = (
        "import sys; sys.modules['deepspeed'] = None\n"
        "from tandem.core.errors import MissingPackageError\nfrom tandem.learn import strategy\n"
        f"try:\n    strategy.load({name!r})\n"
        "except MissingPackageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120.0)
    assert "'deepspeed', which is not installed" in done.stdout
    assert "pip install 'tandemlab[deepspeed]'" in done.stdout
