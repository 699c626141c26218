"""The command's face: help, errors, exit statuses, pipes, Ctrl-C."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tandem import __version__
from tandem.cli.main import COMMANDS, _guarded, tandem
from tests.cli.test_docs import LEAVES, command_of

TANDEM = [sys.executable, "-c", "from tandem.cli.main import main; main()"]
HEAVY = ("numpy", "sqlalchemy", "plotly", "rich", "pydantic")


def test_help_shows_every_command_with_its_own_line_and_fits_the_screen() -> None:
    text = CliRunner().invoke(tandem, ["--help"]).output
    for section, commands in COMMANDS.items():
        assert f"\n{section}:\n" in text
        for name, (_, line) in commands.items():
            assert f"\n  {name.ljust(8)}  {line}\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "tandem submit --cpus" in text


@pytest.mark.parametrize("name", [name for section in COMMANDS.values() for name in section])
def test_the_line_in_the_table_is_how_the_commands_own_help_begins(name: str) -> None:
    command = tandem.get_command(click.Context(tandem), name)
    assert command is not None
    lines = {line for section in COMMANDS.values() for key, (_, line) in section.items() if key == name}
    (line,) = lines
    assert (command.help or "").strip().startswith(line.rstrip("."))


@pytest.mark.parametrize("name", [name for name in LEAVES if name != "up"])
def test_every_command_answers_in_json_and_explains_itself(name: str) -> None:
    command = command_of(name)
    options = [option for parameter in command.params for option in parameter.opts]
    assert "--json" in options
    result = CliRunner().invoke(tandem, [*name.split(), "--help"])
    assert result.exit_code == 0
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not p.help and not p.hidden]
    assert undocumented == []
    assert max(map(len, result.output.splitlines())) <= 100


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("as_json", [False, True])
def test_standard_output_that_cannot_be_written_is_called_so(
    monkeypatch: pytest.MonkeyPatch, unbuffered: str, as_json: bool
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    words = [*TANDEM, *(["--version", "--json"] if as_json else ["--help"])]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    message = json.loads(done.stderr)["error"]["message"] if as_json else done.stderr.removeprefix("tandem: ").strip()
    assert (done.returncode, message) == (2, "standard output: No space left on device")


@pytest.mark.parametrize("words", [["submit", "--", "true"], ["profile", "--", "true"]])
def test_a_folder_that_is_gone_is_named_as_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    (tmp_path / "gone").mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    asked = ["sh", "-c", script, "sh", *TANDEM, *words]
    done = subprocess.run(asked, cwd=tmp_path / "gone", capture_output=True, text=True, check=False)
    subprocess.run([*TANDEM, "down", "--kill"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tandem: a folder to work in that is gone; allowed: one that is there; cd into another\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from tandem.cli.main import tandem\n"
        "assert CliRunner().invoke(tandem, ['--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["sumbit"], "tandem: unknown command 'sumbit'; did you mean 'submit'?\n"),
        (["status"], "tandem: unknown command 'status'; did you mean 'queue' or 'show'?\n"),
        (["queue", "--al"], "tandem: unknown option '--al'; did you mean '--all'?\n"),
        (["queue", "-x"], "tandem: unknown option '-x'; see `tandem queue --help`\n"),
        (["nodes", "--foo"], "tandem: unknown option '--foo'; see `tandem nodes --help`\n"),
        (["--versoin"], "tandem: unknown option '--versoin'; did you mean '--version'?\n"),
        (["simulate"], "tandem: missing argument 'TRACE'; see `tandem simulate --help`\n"),
        (["show", "--json", "abc"], None),
        (
            ["history", "--state", "faield"],
            "tandem: --state 'faield'; allowed: done, failed, cancelled, timeout, lost; did you mean 'failed'?\n",
        ),
        (
            ["queue", "-o", "id,stat"],
            "tandem: --columns 'id,stat'; allowed: id, name, user, class, state, cores, "
            "progress, finish, note, each once, with commas between them; did you mean 'state'?\n",
        ),
        (["queue", "-o", "%Z"], None),
        *(
            (
                [*words, "-5"],
                f"tandem: {words[-1]} '-5'; allowed: 90s, 5m, 1h30m, 2d, or Slurm's 90 (minutes), 1:30:00 (hours), "
                "1-02:03:04 (days); give a number with a unit\n",
            )
            for words in (["wait", "1", "--timeout"], ["history", "--since"], ["promises", "--since"])
        ),
        (["queue", "-o", ""], None),
        (["queue", "-o", "id,id"], None),
        (
            ["up", "--policy", "nope"],
            "tandem: unknown policy 'nope'; allowed: backfill, exclusive, hybrid, las, share, "
            "or package.module:attribute; choose one of these\n",
        ),
        (["up", "--policy", "las", "--option", "foo=1"], None),
        (
            ["up", "--option", "foo"],
            "tandem: --option 'foo'; allowed: KEY=VALUE; give both, as in --option hybrid_window=2\n",
        ),
        (["replay", "--policy", "hybird"], None),
    ],
)
def test_a_mistake_is_one_line_and_status_2(args: list[str], words: str | None) -> None:
    result = CliRunner().invoke(tandem, args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    if words is not None:
        assert result.stderr == words


@pytest.mark.parametrize("args", [["--help", "--json"], ["--json", "-h"], ["--json"]])
def test_help_in_json_has_every_command_with_its_line(args: list[str]) -> None:
    result = CliRunner().invoke(tandem, args)
    told = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, told["version"]) == (0, "", __version__)
    assert told["commands"] == {name: line for part in COMMANDS.values() for name, (_, line) in part.items()}


@pytest.mark.parametrize("args", [["--version", "--json"], ["--json", "--version"]])
def test_the_version_in_json(args: list[str]) -> None:
    result = CliRunner().invoke(tandem, args)
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"version": __version__})


def test_json_before_a_command_is_not_ignored() -> None:
    result = CliRunner().invoke(tandem, ["--json", "queue"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "behind the command: `tandem queue --json`" in json.loads(result.stderr)["error"]["message"]


def test_with_json_a_mistake_is_json_too() -> None:
    result = CliRunner().invoke(tandem, ["simulate", "--json", "no-such-file"])
    error = json.loads(result.stderr)["error"]
    assert (result.exit_code, error["exit_code"], error["error"]) == (2, 2, "UsageError")
    assert "no-such-file" in error["message"]


def test_json_of_the_job_itself_does_not_count() -> None:
    result = CliRunner().invoke(tandem, ["submit", "--cpu", "2", "--", "train", "--json"])
    assert result.stderr.startswith("tandem: unknown option '--cpu'")


def test_escape_codes_in_a_mistake_are_shown_escaped() -> None:
    result = CliRunner().invoke(tandem, ["\x1b[31mred\nline"])
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
    assert "\\x1b[31mred\\nline" in result.stderr.replace("\\\\", "\\")


def test_version() -> None:
    result = CliRunner().invoke(tandem, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("tandem 0.")


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    case = tmp_path / "case.toml"
    case.write_text("[[nodes]]\ncpus = 4\n[[jobs]]\nname = 'a'\nwork_s = 1\ncount = 3\n")
    command = " ".join([*(f"'{word}'" for word in TANDEM), "simulate", str(case), "--policy", "share"])
    script = f"{command} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout in ("141\n", "0\n")  # 0: everything was written before the reader went


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    case = tmp_path / "case.toml"
    case.write_text("[[nodes]]\ncpus = 4\n[[jobs]]\nname = 'a'\nwork_s = 1\nevery_s = 0.5\ncount = 200_000\n")
    ready = tmp_path / "ready"
    code = (
        "from pathlib import Path; import tandem.share.simulate.compare as c; from tandem.cli.main import main\n"
        f"play = c.play\ndef tell(*a, **k):\n Path({str(ready)!r}).touch(); return play(*a, **k)\nc.play = tell\nmain()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "simulate", str(case), "--policy", "share"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
        os.sched_yield()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_an_end_of_file_within_the_program_is_no_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def status_of(callback: Callable[[], None]) -> int:
        return _guarded(lambda: click.Command("it", callback=callback).main([], "it", standalone_mode=False), [])

    def ends() -> None:
        raise EOFError(1)

    with pytest.raises(EOFError):
        status_of(ends)
    assert status_of(lambda: click.prompt("you")) == 130  # Ctrl-D
