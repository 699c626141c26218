"""`tandem kernels`: what runs here, and a comparison of one small shape."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tandem.cli.main import tandem


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
    from tandem.kernels.sparse import measuring

    monkeypatch.setattr(measuring, "_MOST_COPIES", 2)
    command = ["kernels", "bench", "--shape", "256x128", "--count", "1,3", "--zeros", "0.6", "--values", "bf16,int8"]
    told = CliRunner().invoke(tandem, [*command, "--report", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.stderr
    first, second = json.loads(told.stdout)
    assert (first["rows"], first["cols"], first["count"], second["count"]) == (256, 128, 1, 3)
    names = [product["name"] for product in first["products"]]
    assert names[:2] == ["bf16 60%", "int8 60%"]
    assert {"F.linear bf16", "F.linear fp32"} <= set(names)
    assert first["best_dense"] in names
    assert all(product["median_s"] > 0 for product in first["products"])
    assert "256 x 128, 3 rows of x" in (tmp_path / "report.html").read_text()


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
