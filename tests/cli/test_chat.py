"""`tandem chat` as a user runs it."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tandem.chat.errors import RowsError
from tandem.cli.main import tandem
from tests.chat.small import write_rows

chat_commands = importlib.import_module("tandem.cli.chat")

RECIPE = """
[model]
init = "tiny-llama"
width = 16
layers = 1
heads = 2
context_tokens = 32

[data]
held_out = 0.2
[[data.sources]]
path = "rows.jsonl"

[sft]
steps = 2
batch_tokens = 64

[rl]
steps = 1
reward = "gsm8k"
prompts = 2
response_tokens = 6

[eval]
rows = 4
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


@pytest.mark.slow
def test_it_trains_measures_and_talks(recipe: Path, tmp_path: Path) -> None:
    runner, run = CliRunner(), str(tmp_path / "run")
    done = runner.invoke(tandem, ["chat", "train", str(recipe), "--out", run])
    assert done.exit_code == 0, done.output
    assert "report: " in done.stdout
    assert "perplexity" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()
    as_json = json.loads(runner.invoke(tandem, ["chat", "eval", run, "--rows", "3", "--json"]).stdout)
    assert as_json["figures"]["rl"]["score"]["rows"] == 3
    later = ["chat", "train", str(recipe), "--out", run, "--stage", "sft"]
    assert "Figures of another evaluation (rows 3, not 4). To measure " in runner.invoke(tandem, later).stdout
    assert "(rows 3, not 4)" in json.loads(runner.invoke(tandem, [*later, "--json"]).stdout)["differs"]
    talked = runner.invoke(tandem, ["chat", "talk", run, "--temperature", "0"], input="hi\n/new\nhi\n")
    assert talked.exit_code == 0
    replies = [part.partition("you> ")[0] for part in talked.stdout.split("model> ")[1:]]
    assert len(replies) == 2
    assert replies[0] == replies[1]
    for more in ([], ["--json"], ["--system", b"\xef"]):
        talk = [sys.executable, "-m", "tandem", "chat", "talk", run, *more]
        refused = subprocess.run(talk, input=b"na\xefve\n", capture_output=True, check=False)
        assert refused.returncode == 2
        assert b"that is not UTF-8: " in refused.stderr
        assert b"Traceback" not in refused.stderr
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "tandem", "chat", "talk", run, "--json"]
    silent = subprocess.run(closed, capture_output=True, check=True)
    assert json.loads(silent.stdout) == {"run": run, "messages": []}
    told = runner.invoke(tandem, ["chat", "talk", run, "--temperature", "0", "--json"], input="hi\n")
    assert told.exit_code == 0, told.stderr
    reply = json.loads(told.stdout)["messages"][1]
    assert (reply["role"], reply["content"] + "\n") == ("assistant", replies[0])
    assert reply["content"]
    lines = f"hi\n{'x' * 100}\nhi\n"
    broken = runner.invoke(tandem, ["chat", "talk", run, "--temperature", "0", "--json"], input=lines)
    assert broken.exit_code == 2
    assert json.loads(broken.stdout) == json.loads(told.stdout)
    assert json.loads(broken.stderr)["error"]["error"] == "RowsError"


def test_at_a_terminal_a_line_that_is_refused_does_not_end_the_talk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(said: str, on_text: Callable[[str], None]) -> str:
        raise RowsError(given=said, allowed="short ones", todo="say less")

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    chat_commands._reply(refuse, "a long message")
    assert capsys.readouterr() == ("", "tandem: a long message; allowed: short ones; say less\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(RowsError):
        chat_commands._reply(refuse, "a long message")


@pytest.mark.slow
def test_an_evaluation_without_held_out_rows_says_so(recipe: Path, tmp_path: Path) -> None:
    asked = ["chat", "train", str(recipe), "--out", str(tmp_path / "run"), "--set", "data.held_out=0"]
    done = CliRunner().invoke(tandem, asked)
    assert done.exit_code == 0, done.output
    assert "The evaluation measured nothing: " in done.stdout
    assert "perplexity" not in done.stdout


@pytest.mark.parametrize("command", ["talk", "eval"])
def test_a_temperature_that_is_no_number_is_refused_at_once(command: str) -> None:
    done = CliRunner().invoke(tandem, ["chat", command, "nowhere", "--temperature", "nan"])
    assert done.exit_code == 2
    assert "is not a finite number" in done.stderr


@pytest.mark.parametrize("seed", ["-1", "9223372036854775808"])
def test_a_seed_outside_of_a_recipes_range_is_refused_at_once(seed: str) -> None:
    done = CliRunner().invoke(tandem, ["chat", "talk", "nowhere", "--seed", seed])
    assert done.exit_code == 2
    assert "is not in the range 0<=x<=9223372036854775807" in done.stderr


@pytest.mark.parametrize("override", ["rl.algorithm=ppoo", "rl.settings.group=5", "rl.reward=nope:score"])
def test_what_is_looked_up_is_refused_with_its_override(override: str, recipe: Path, tmp_path: Path) -> None:
    asked = ["--out", str(tmp_path / "run"), "--set", "sft.steps=3", "--set", override]
    done = CliRunner().invoke(tandem, ["chat", "train", str(recipe), *asked])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"tandem: --set {override}: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("steps = 2", "stepz = 2"), "did you mean 'sft.steps'?"),
        (('init = "tiny-llama"', 'path = "nowhere"'), "there is no such folder"),
        (("rows.jsonl", "none.jsonl"), "there is no such file or folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(change: tuple[str, str], told: str, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace(*change))
    done = CliRunner().invoke(tandem, ["chat", "train", str(recipe), "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert done.stderr.startswith("tandem: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
