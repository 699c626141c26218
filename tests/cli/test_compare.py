"""`tandem simulate` and `tandem compare`, from files to tables."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tandem.cli.main import tandem
from tandem.core import durable
from tandem.share.simulate import compare as comparing

EXAMPLES = Path(__file__).parents[2] / "examples"
PHILLY = """\
timestamp,duration,num_gpus,gpu_time,cluster
2017-10-03 00:00:00,600,1,600,a
2017-10-03 00:00:10,300,2,600,b
2017-10-03 00:00:20,30,4,120,a
"""


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(tandem, list(map(str, args)))


@pytest.fixture
def philly(tmp_path: Path) -> Path:
    path = tmp_path / "philly.csv"
    path.write_text(PHILLY)
    return path


def test_compare_prints_the_known_answer_and_writes_the_report(tmp_path: Path) -> None:
    report = tmp_path / "there" / "report.html"
    result = run("compare", EXAMPLES / "hybridshare.toml", "--policies", "exclusive,share", "--report", report.parent)
    assert result.exit_code == 0, result.stderr
    assert "exclusive ends at 75 s; share ends at 21 s\n" in result.stdout
    assert result.stdout.endswith(f"report: {report}\n")
    assert "\x1b" not in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())
    assert "exclusive and share side by side" in report.read_text()


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def played(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(comparing, "play", played)
    (tmp_path / "report.html").write_text("my own notes")
    for where, words in ((tmp_path, "not a report that Tandem wrote"), (Path("/proc/none"), "cannot be written to")):
        result = run("compare", EXAMPLES / "hybridshare.toml", "--report", where)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
    assert (tmp_path / "report.html").read_text() == "my own notes"


def test_figures_are_told_though_the_report_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    command = ("compare", EXAMPLES / "hybridshare.toml", "--report", tmp_path)
    result = run(*command)
    assert result.exit_code == 2
    assert result.stdout.endswith("exclusive ends at 75 s; share ends at 21 s\n")
    assert "No space left on device" in result.stderr
    result = run(*command, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["report"] is None
    assert "No space left on device" in json.loads(result.stderr)["error"]["message"]


def test_compare_in_json(tmp_path: Path) -> None:
    result = run("compare", EXAMPLES / "hybridshare.toml", "--report", tmp_path, "--json")
    told = json.loads(result.stdout)
    assert {name: figures["makespan_s"] for name, figures in told["policies"].items()} == {"exclusive": 75, "share": 21}
    assert told["workload"]["jobs"] == 100
    assert told["workload"]["gpu_load"] is None  # everything arrives at once: infinite, which JSON cannot say
    assert told["report"] == str(tmp_path / "report.html")


def test_simulate_reads_a_trace_and_says_what_it_assumed(philly: Path) -> None:
    result = run("simulate", philly, "--policy", "backfill", "--set", "nodes=2", "--seed", "4")
    assert result.exit_code == 0, result.stderr
    assert "3 jobs on 2 nodes with 96 cores and 8 GPUs" in result.stdout
    assert "time limits are the true run time times a factor uniform on [1, 5] (seed 4)" in result.stdout
    assert "report" not in result.stdout


@pytest.mark.parametrize(
    ("options", "quoted"), [((), 300), (("--option", "quotes=1"), 900), (("--option", "quotes=0"), 0)]
)
def test_of_many_jobs_some_are_quoted(tmp_path: Path, options: tuple[str, ...], quoted: int) -> None:
    lines = [f"2017-10-03 {k // 3600:02}:{k // 60 % 60:02}:{k % 60:02},30,1,30,a" for k in range(0, 36000, 40)]
    (tmp_path / "many.csv").write_text("\n".join([PHILLY.splitlines()[0], *lines]) + "\n")
    result = run("simulate", tmp_path / "many.csv", "--policy", "backfill", "--set", "nodes=1", *options, "--json")
    assert json.loads(result.stdout)["policies"]["backfill"]["quotes"] == quoted


def test_jobs_that_can_never_run_are_said(philly: Path, tmp_path: Path) -> None:
    few = ("--set", "nodes=1", "--set", "gpus=2", "--report", tmp_path)
    result = run("compare", philly, *few)
    assert result.exit_code == 0, result.stderr
    (said,) = [line for line in result.stdout.splitlines() if "can never run" in line]
    assert said.startswith("- 1 job can never run, and is in none of the figures but that of jobs: job 3 asks for ")
    assert "2 whole GPUs on each of 2 nodes (1 node at a time can give that)" in said
    assert "1 job can never run" in (tmp_path / "report.html").read_text()
    (told,) = json.loads(run("compare", philly, *few, "--json").stdout)["never_run"]
    assert (told["jobs"], told["first"]) == (1, 3)
    assert json.loads(run("simulate", philly, "--json").stdout)["never_run"] == []


def test_a_trace_of_which_no_job_can_run_is_refused(philly: Path) -> None:
    philly.write_text(PHILLY.replace("600,1,", "600,3,"))
    result = run("simulate", philly, "--set", "nodes=1", "--set", "gpus=1")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "of which none can ever run: job 1 asks for 4 cores, 1 whole GPU on each of 3 nodes (" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_nodes_first_and_limit_error(philly: Path) -> None:
    result = run("simulate", philly, "--nodes", "3", "--first", "2", "--limit-error", "1", "--json")
    workload = json.loads(result.stdout)["workload"]
    assert (workload["jobs"], workload["nodes"]) == (2, 3)
    assert any("uniform from 1 to 1" in note for note in workload["notes"])


def test_exact_limits_make_a_day_that_can_be_worked_out(philly: Path) -> None:
    # One node of 4 GPUs: 1 + 2 GPUs run at once; the job of 4 waits for the one of 600 s.
    told = json.loads(
        run("simulate", philly, "--nodes", "1", "--limit-error", "1", "--policy", "backfill", "--json").stdout
    )
    assert told["policies"]["backfill"]["makespan_s"] == 630


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--policies", "share,hybird"], "did you mean 'hybrid'?"),
        (["--policies", "share,share"], "name each once"),
        (["--policies", ","], "name each once"),
        (["--set", "jobs.0.cuont=3"], "did you mean 'jobs.0.count'?"),
        (["--set", "jobs.0.count=2", "--set", "jobs.0.cpus=-1"], "tandem: --set jobs.0.cpus=-1: "),
        (["--set", "nonsense"], "KEY=VALUE"),
        (["--nodes", "3"], "a case names its nodes"),
        (["--option", "hybrid_window=much"], "allowed: a number"),
        (["--option", "hybrid_window=inf"], "allowed: a number"),
        (["--option", "hybrid_windwo=2", "--policies", "hybrid"], "did you mean 'hybrid_window'?"),
        (["--option", "las_step_s=2", "--policies", "hybrid,share"], "it is an option of las"),
        (["--policies", "share,nope"], "unknown policy 'nope'; allowed: backfill,"),
        (["--estimator", "nope"], "unknown estimator 'nope'"),
        (["--noise", "nan"], "'--noise': nan is not a finite number"),
        (["--noise", "inf"], "'--noise': inf is not in the range"),
        (["--noise", "1e300"], "'--noise': 1e+300 is not in the range"),
        (["--limit-error", "1e308"], "'--limit-error': 1e+308 is not in the range"),
        (["--limit-error", "nan"], "'--limit-error': nan is not a finite number"),
        (["--estimator", "oracle"], "oracle"),
        (["--first", "0"], "--first"),
    ],
)
def test_mistakes_with_a_case(tmp_path: Path, args: list[str], words: str) -> None:
    result = run("compare", EXAMPLES / "hybridshare.toml", "--report", tmp_path, *args)
    assert result.exit_code == 2
    assert result.stderr.startswith("tandem: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_mistakes_with_a_trace(philly: Path, tmp_path: Path) -> None:
    assert "did you mean 'nodes'?" in run("simulate", philly, "--set", "noeds=2").stderr
    unknown = tmp_path / "poem.txt"
    unknown.write_text("roses are red\n")
    assert "'roses are red', which no format would read" in run("simulate", unknown).stderr
    assert run("simulate", unknown).exit_code == 2
    assert "did you mean 'philly'?" in run("simulate", philly, "--format", "phily").stderr


def test_an_option_that_one_of_the_policies_reads_is_taken(tmp_path: Path) -> None:
    args = ["--policies", "exclusive,las", "--option", "las_step_s=5", "--option", "quotes=0"]
    assert run("compare", EXAMPLES / "hybridshare.toml", "--report", tmp_path, *args).exit_code == 0


@pytest.mark.parametrize("command", ["simulate", "compare", "replay"])
def test_a_file_that_is_no_text_is_not_echoed(command: str, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(bytes(range(256)) * 4)
    result = run(command, rubbish)
    assert result.exit_code == 2
    assert result.stderr == (
        f"tandem: {rubbish} is no text (it begins with the bytes 00 01 02 03 04 05 06 07); "
        "allowed: text, or gzipped text; check that this is the file you meant\n"
    )


def test_text_in_any_alphabet_is_text(tmp_path: Path) -> None:
    poem = tmp_path / "poem.txt"
    poem.write_text("\N{BLACK HEART SUIT} розы красные\t\x1b[0m\n")
    assert "which no format would read" in run("simulate", poem).stderr


def test_a_case_without_jobs_is_refused(tmp_path: Path) -> None:
    text = (EXAMPLES / "hybridshare.toml").read_text()
    empty = tmp_path / "empty.toml"
    empty.write_text("jobs = []\n" + text[: text.index("[[jobs]]")])
    result = run("compare", empty, "--report", tmp_path / "out")
    assert result.exit_code == 2
    assert "which has no jobs" in result.stderr
    assert "add a [[jobs]] table" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_trace_of_which_nothing_is_left_says_what_was_passed_over(tmp_path: Path) -> None:
    trace = tmp_path / "one.swf"
    trace.write_text("; MaxProcs: 4\n1 0 0 -5 1 -1 -1 1 10 -1 1 1 1 1 1 1 -1 -1\n")
    result = run("simulate", trace)
    assert result.exit_code == 2
    assert "1 job skipped: run time unknown" in result.stderr
    assert "[[jobs]]" not in result.stderr
