"""`tandem kernels prune` as a user meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from tandem.cli.main import tandem
from tests.kernels.prune.models import folder_of, text_file

COMMAND = [sys.executable, "-c", "from tandem.cli.main import main; main()", "kernels", "prune"]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("models") / "dense")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("texts") / "text.txt")


def prune(*args: object) -> Result:
    return CliRunner().invoke(tandem, ["kernels", "prune", *map(str, args)])


@pytest.mark.slow
def test_the_table_the_perplexities_and_where_it_all_is(dense: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = prune(
        dense, out, "--method", "wanda", "--sparsity", 0.6, "--calibration", text, "--eval", text, "--length", 32
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["layer", "outputs", "inputs", "zeros", "output", "error", "bits", "a", "weight"]
    assert lines[2].startswith("model.layers.0.self_attn.q_proj")
    assert "59.96 %" in lines[2]  # 614 of 1,024
    assert f"model: {out}" in lines
    assert f"report: {out / 'report.html'}" in lines
    assert any(line.startswith("perplexity ") and line.endswith("(1,937 tokens predicted)") for line in lines)
    assert done.stderr == ""


@pytest.mark.slow
def test_all_of_it_as_json(dense: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["--method", "sparsegpt", "--nm", "2:4", "--calibration", text, "--eval", text, "--length", 32]
    done = prune(dense, out, *args, "--finetune", 2, "--distil", "--json")
    told = json.loads(done.stdout)
    assert (told["method"], told["pattern"], told["sparsity"]) == ("sparsegpt", "2:4", 0.5)
    assert set(told["perplexity"]) == {"dense", "pruned", "trained"}
    assert told["eval_tokens"] == 1937
    assert len(told["layers"]) == 21
    weight = load_file(out / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    assert bool(((weight != 0).unflatten(1, (-1, 4)).sum(dim=2) <= 2).all())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give either --sparsity or --nm; see `tandem kernels prune --help`"),
        (("--sparsity", 0.5, "--nm", "2:4"), "give either --sparsity or --nm"),
        (("--sparsity", 0), "--sparsity 0; allowed: a share of zeros above 0 and below 1"),
        (("--sparsity", 1), "--sparsity 1; allowed"),
        (("--sparsity", "nan"), "--sparsity nan; allowed"),
        (("--nm", "4:2"), "--nm 4:2; allowed: N:M"),
        (
            ("--sparsity", 0.5, "--method", "wandda"),
            "unknown pruning method 'wandda'; allowed: magnitude, sparsegpt, w",
        ),
        (("--sparsity", 0.5), "--method wanda without a calibration text"),
        (("--sparsity", 0.5, "--calibration", "nothing"), "the calibration text nothing: No such file or directory"),
        (("--sparsity", 0.5, "--distil"), "give --finetune STEPS"),
        (("--nm", "2:4", "--owl", "--calibration", __file__), "--owl with 2:4"),
        (("--sparsity", 0.5, "--lr", 0), "--lr"),
        (("--sparsity", 0.5, "--lr", "nan"), "'--lr': nan is not a finite number"),
        (("--sparsity", 0.5, "--lr", "inf"), "'--lr': inf is not a finite number"),
        (("--sparsity", 0.5, "--method", "magnitude", "--device", "cuda:99"), "--device cuda:99; allowed: cpu"),
        (("--sparsity", 0.5, "--method", "magnitude", "--device", "gpu"), "--device gpu; allowed: cpu"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    dense: Path, tmp_path: Path, args: tuple[object, ...], words: str
) -> None:
    done = prune(dense, tmp_path / "out", *args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert list(tmp_path.glob("*out*")) == []


def started(dense: Path, text: Path, out: Path) -> subprocess.Popen[str]:
    """A run that trains for long, once it writes aside."""
    args = [dense, out, "--sparsity", "0.5", "--calibration", text, "--finetune", "100000"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not out.with_name(f".{out.name}.aside").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_leaves_nothing(dense: Path, text: Path, tmp_path: Path) -> None:
    process = started(dense, text, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "")
    assert list(tmp_path.glob("*out*")) == []


@pytest.mark.slow
def test_after_kill_9_the_same_command_starts_again(dense: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(dense, text, out)
    (tmp_path / ".out.aside" / "half").touch()
    process.kill()
    process.communicate(timeout=60)
    assert not out.exists()
    assert prune(dense, out, "--sparsity", 0.5, "--calibration", text).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "report.html",
    ]  # fmt: skip
    assert list(tmp_path.glob(".out*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_the_packages_the_extra_is_named(dense: Path, tmp_path: Path, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from tandem.cli.main import main; main()"
    args = ["kernels", "prune", str(dense), str(tmp_path / "out"), "--method", "magnitude", "--sparsity", "0.5"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"needs the package '{package}', which is not installed" in done.stderr
    assert re.search(r"run: pip install 'tandemlab\[(kernels|learn)\]'\n", done.stderr)  # torch is in both
    assert list(tmp_path.glob("*out*")) == []


@pytest.mark.slow
def test_the_command_alone_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from tandem.cli.main import tandem\n"
        "assert CliRunner().invoke(tandem, ['kernels', 'prune', '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(tandem, ['kernels', 'prune', 'a', 'b']).exit_code == 2\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'plotly') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
