"""The recipe as a user runs it, small."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

RECIPE = Path(__file__).parents[2] / "examples" / "sparse_llama.py"


@pytest.mark.slow
def test_it_trains_prunes_and_tells_and_a_second_run_takes_the_dense_model_from_the_folder(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the king speaks of ships and rain. " * 2000)
    command = [sys.executable, str(RECIPE), "--quick", "--out", str(tmp_path / "out"), "--text", str(text)]

    def run() -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = run()
    rows = {line.split()[0]: line.split() for line in told.splitlines() if line.split()[:1] != []}
    for method in ("magnitude", "wanda", "sparsegpt"):
        name, zeros, error, dense, pruned, trained = rows[method]
        assert (name, zeros) == (method, "60%")
        assert 0 < float(error.rstrip("%")) < 100
        assert 1 < float(dense) < 40
        assert float(trained) < float(pruned)
        weights = load_file(tmp_path / "out" / f"{method}-60" / "model.safetensors")
        up = weights["model.layers.1.mlp.up_proj.weight"]
        assert float((up == 0).float().mean()) == pytest.approx(0.6, abs=1e-3)
    assert float(told.split("dense, float32")[1].split()[0]) > 0
    has_kernels = importlib.util.find_spec("tandem.kernels.sparse.model") is not None
    assert ("x the best dense)" if has_kernels else "sparse: not measured") in told
    first = (tmp_path / "out" / "dense" / "model.safetensors").read_bytes()
    assert "(there already)" in run()
    assert (tmp_path / "out" / "dense" / "model.safetensors").read_bytes() == first
