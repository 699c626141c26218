"""The reference names every command and option there is, and the documentation's own case can be played."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tandem.cli.main import COMMANDS, tandem
from tandem.share.daemon import api

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [name for section in COMMANDS.values() for name in section]


def command_of(name: str) -> click.Command:
    """The command, or sub-command, that these words call."""
    command: click.Command | None = tandem
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    return command


def leaves(name: str) -> list[str]:
    """The command itself, or all its sub-commands."""
    command = command_of(name)
    return (
        [f"{name} {sub}" for sub in command.list_commands(click.Context(command))]
        if isinstance(command, click.Group)
        else [name]
    )


LEAVES = [leaf for name in NAMES for leaf in leaves(name)]


def options(name: str) -> set[str]:
    command = command_of(name)
    return {text for parameter in command.params if isinstance(parameter, click.Option) for text in parameter.opts}


@pytest.mark.parametrize("name", LEAVES)
def test_the_reference_has_the_command_with_exactly_its_options(name: str) -> None:
    text = (DOCS / "reference" / "cli.md").read_text()
    part = text.split(f"### tandem {name}\n")[1].split("\n### ")[0].split("\n## ")[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    told = {text for row in rows for text in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row)}
    assert told == options(name) - {"--json"}


def test_the_reference_of_the_api_has_exactly_the_methods_there_are() -> None:
    text = (DOCS / "reference" / "api.md").read_text().split("## Methods\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    told = [method for row in rows for method in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted([*api._QUESTIONS, *api._METHODS])


def test_commands_in_the_documentation_exist() -> None:
    pages = [*DOCS.glob("tutorial/*.md"), *DOCS.glob("how-to/*.md")]
    checked = 0
    for page in pages:
        for line in re.findall(r"(?:^[$#] |\$\()(tandem [^|)\n]*)", page.read_text(), re.MULTILINE):
            words = shlex.split(line, comments=True)
            assert words[1] in NAMES, (page, line)
            own = words[2 : words.index("--")] if "--" in words else words[2:]
            given = {word for word in own if re.fullmatch(r"--?[a-z][a-z-]*", word)}
            called = " ".join(words[1:3]) if isinstance(command_of(words[1]), click.Group) else words[1]
            assert given <= options(called), (page, line)
            checked += 1
    assert checked > 20


def test_the_case_in_the_documentation_can_be_played(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "compare-policies.md").read_text()
    case = tmp_path / "robots.toml"
    case.write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    command = ["compare", str(case), "--set", "jobs.1.count=10", "--report", str(tmp_path), "--json"]
    told = json.loads(CliRunner().invoke(tandem, command).stdout)
    assert set(told["policies"]) == {"backfill", "hybrid"}
    assert told["policies"]["hybrid"]["done"] == 11
