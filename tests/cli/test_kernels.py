"""`tandem kernels`: what runs here, and a comparison of one small shape."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tandem.cli.main import tandem
from tandem.core import machine


@pytest.fixture(autouse=True)
def _own_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_SPARSE_TUNING", str(tmp_path / "tuning"))


def test_info_says_which_backends_run_and_why_others_do_not() -> None:
    told = json.loads(CliRunner().invoke(tandem, ["kernels", "info", "--json"]).stdout)
    assert {"cpu", "cuda", "portable", "triton"} <= told["backends"].keys()
    assert told["backends"]["portable"] == {"runs": True, "why_not": ""}
    assert told["cpu_paths"][-1] == "scalar"
    for backend in told["backends"].values():
        assert backend["runs"] == (backend["why_not"] == "")
    text = CliRunner().invoke(tandem, ["kernels", "info"]).stdout
    assert "the first is used" in text


@pytest.mark.slow
def test_bench_compares_with_dense_products_and_writes_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tandem.kernels.sparse import contenders

    monkeypatch.setattr(contenders, "_MOST_COPIES", 2)
    twice = ["--shape", "256x128", "--count", "1,3,1", "--zeros", "0.6,0.60", "--values", "bf16,int8,bf16"]
    command = ["kernels", "bench", "--shape", "256x128", *twice]
    told = CliRunner().invoke(tandem, [*command, "--report", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.stderr
    first, second = json.loads(told.stdout)
    assert (first["rows"], first["cols"], first["count"], second["count"]) == (256, 128, 1, 3)
    names = [product["name"] for product in first["products"]]
    assert [name for name in names if "60%" in name] == ["bf16 60%", "int8 60%"]
    assert {"F.linear bf16", "F.linear fp32"} <= set(names)
    assert first["best_dense"] in names
    assert not first["from_memory"]  # two copies of 64 KB
    assert all(product["median_s"] > 0 for product in first["products"])
    assert "256 x 128, 3 rows of x" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("available_bytes", "shapes", "refused"),
    [(1 << 20, ["64x64"], "64x64"), (1 << 31, ["64x64", "8192x8192"], "8192x8192")],
)
def test_what_does_not_fit_into_memory_is_refused_before_anything_is_measured(
    available_bytes: int, shapes: list[str], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tandem.kernels.sparse import contenders, measuring

    measured: list[object] = []
    monkeypatch.setattr(machine, "available_bytes", lambda: available_bytes)
    monkeypatch.setattr(contenders, "cache_bytes", lambda: 4 << 20)
    monkeypatch.setattr(measuring, "measure", lambda *of: measured.append(of))
    told = CliRunner().invoke(tandem, ["kernels", "bench", *(word for shape in shapes for word in ("--shape", shape))])
    assert told.exit_code == 2
    assert f"--shape '{refused}'" in told.stderr
    assert "are free; ask for fewer --zeros or --values" in " ".join(told.stderr.split())
    assert not measured


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--shape", "4096"),
        ("--shape", "0x4"),
        ("--shape", "131072x131072"),
        ("--count", "0"),
        ("--zeros", "1.5"),
        ("--zeros", ""),
        ("--values", "fp8"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(option: str, value: str) -> None:
    told = CliRunner().invoke(tandem, ["kernels", "bench", option, value])
    assert told.exit_code == 2
    assert told.stderr.count("\n") <= 2
    assert option in told.stderr


@pytest.mark.slow
def test_without_torch_each_command_says_what_to_install(tmp_path: Path) -> None:
    def without_torch(*args: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; sys.modules['torch'] = None; from tandem.cli.main import main; main()"
        command = [sys.executable, "-c", code, "kernels", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    remedy = "needs the package 'torch', which is not installed"
    told = without_torch("info")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.count(remedy) == 4
    told = without_torch("info", "--json")
    assert json.loads(told.stdout)["cpu_paths"] == []
    assert all(remedy in backend["why_not"] for backend in json.loads(told.stdout)["backends"].values())
    for args in (["bench", "--shape", "64x64", "--count", "1"], ["prune", "--sparsity", "0.5", "here", "there"]):
        told = without_torch(*args)
        assert (told.returncode, told.stdout) == (2, "")
        assert remedy in told.stderr
        assert told.stderr.endswith("run: pip install 'tandemlab[kernels]'\n")
        assert json.loads(without_torch(*args, "--json").stderr)["error"]["error"] == "MissingPackageError"
    assert list(tmp_path.iterdir()) == []
