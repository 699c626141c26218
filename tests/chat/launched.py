"""Runs of several ranks, as torchrun starts them, beside runs of one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tandem.chat.run_folder import RunFolder
from tests.chat.forked_runs import Run, written
from tests.chat.test_train import REWARDS

DEADLINE_S = 900.0
"""Of a run, on a machine that is busy with others; none is waited for."""

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def launch(file: Path, folder: Path, *overrides: str, ranks: int = 2, strategy: str = "fsdp") -> subprocess.Popen[str]:
    """Start a run on several ranks; each is a process of one thread."""
    options = [word for override in (f"strategy={strategy}", *overrides) for word in ("--set", override)]
    (file.parent / "capitals.py").write_text(REWARDS)
    command = [*TORCHRUN, str(ranks), "-m", "tandem", "chat", "train", str(file), "--out", str(folder), *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a run; its exit status, and what it wrote on its two streams."""
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()  # of one that has ended nothing is left to be killed
    return process.returncode, out, err


def launched(file: Path, folder: Path, *overrides: str, ranks: int = 2, strategy: str = "fsdp") -> RunFolder:
    """Run on several ranks to the end."""
    status, _, err = ended(launch(file, folder, *overrides, ranks=ranks, strategy=strategy))
    assert status == 0, err
    return RunFolder(folder)


def launched_all(runs: list[Run]) -> None:
    """Do runs one after the other by as many ranks as the largest has."""
    ranks, file = max(run.ranks for run in runs), written(runs, Path(runs[0].folder).with_suffix(".json"))
    command = [*TORCHRUN, str(ranks), "-m", "tests.chat.forked_runs", str(file)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    status, _, err = ended(subprocess.Popen(command, env=env, stdout=None, stderr=subprocess.PIPE, text=True))
    assert status == 0, err


def assert_alike(one: RunFolder, many: RunFolder, *, models: tuple[str, ...], off: float = 2e-5) -> None:
    """Compare all that was recorded of the stages, samples, and weights, but for rounding."""
    for stage in ("sft", "reward", "rl"):
        told, found = one.series(stage), many.series(stage)
        assert found.keys() == told.keys()
        for name in told:
            if not name.endswith(("_s", "peak_bytes")):
                assert [x for x, _ in found[name]] == [x for x, _ in told[name]]
                assert [y for _, y in found[name]] == pytest.approx([y for _, y in told[name]], rel=off, abs=off), name
    said, found_said = ([(x["step"], x["prompt"], x["response"]) for x in run.samples()] for run in (one, many))
    assert found_said == said
    for name in models:
        ours, theirs = (load_file(run.model(name) / "model.safetensors") for run in (many, one))
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.allclose(ours[key], theirs[key], rtol=0.0, atol=off), (name, key)


def wait_for(folder: Path, text: str, process: subprocess.Popen[str]) -> None:
    """Wait until a run's records hold a text."""
    events, until_s = folder / "events.jsonl", time.monotonic() + DEADLINE_S
    while not events.exists() or text not in events.read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until_s, f"no {text} in {events}"
        time.sleep(0.02)
