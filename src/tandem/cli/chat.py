"""`tandem chat`: from texts to a chat model."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli.finite import finite
from tandem.cli.group import Nouns
from tandem.cli.terminal import json_option, print_json, progress, say, say_err, show_table
from tandem.core.clean_stdout import hush_deepspeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tandem.chat.recipe import Recipe
    from tandem.chat.run_folder import RunFolder

RUN = click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
SEED = click.IntRange(0, 2**63 - 1)
"""As in a recipe."""
DEVICE = click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, auto. [as in the recipe]")
TEMPERATURE: dict[str, Any] = {"type": click.FloatRange(0), "callback": finite, "metavar": "T"}


@click.group(cls=Nouns, subcommand_metavar="COMMAND ...", no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def chat(ctx: click.Context) -> None:
    """Teach a language model by demonstrations, preferences, rewards.

    \b
    tandem chat train recipe.toml --out runs/first
    tandem chat eval runs/first
    tandem chat talk runs/first
    """
    hush_deepspeed()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@chat.command()
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The run's folder. [runs/NAME]")
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(["sft", "reward", "rl", "eval"]),
    help="Only this one, repeatable. [all that the recipe has]",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Over the recipe: rl.steps=200.")
@json_option
def train(recipe: Path, out: Path | None, stages: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Train by a recipe: sft, reward, rl, eval; goes on where it was stopped.

    A stage that is done is not done again. The folder gets models that transformers loads, and report.html.

    \b
    tandem chat train recipe.toml --out runs/first
    tandem chat train recipe.toml --out runs/first --stage rl --set rl.steps=200
    """
    from tandem.chat import page
    from tandem.chat import recipe as recipes
    from tandem.chat.measured import differs
    from tandem.chat.train import check
    from tandem.chat.train import train as run_stages
    from tandem.core import config
    from tandem.learn.joining import is_first

    folder = out or Path(os.environ.get("TANDEM_RUN_DIR") or Path("runs") / recipe.stem)
    beside = recipe.resolve().parent

    def read(settings: tuple[str, ...]) -> Recipe:
        found = recipes.load(recipe, settings)
        check(found, folder, recipe_folder=beside, stages=stages or None)
        return found

    asked = config.with_overrides(read, overrides)
    first = is_first()
    with progress("steps", quiet=as_json or not first) as tell, _quiet_unless(first):
        run = run_stages(
            asked,
            folder,
            recipe_folder=beside,
            stages=stages or None,
            say=(say_err if as_json else say) if first else lambda text: None,
            progress=tell,
        )
    if not first:
        return
    where = page.write(run)
    if as_json:
        print_json({"run": str(folder), "report": str(where), **run.read_json("eval.json"), "differs": differs(run)})
        return
    _tell(run)
    say(f"report: {where}")


@chat.command()
@click.argument("runs", type=click.Path(path_type=Path), metavar="RUN...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The page. [report.html]")
@json_option
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Show several runs of one recipe with different seeds on one page: means, with intervals.

    \b
    tandem chat report runs/seed-0 runs/seed-1 runs/seed-2
    """
    from tandem.chat import several
    from tandem.chat.run_folder import RunFolder

    folders = [RunFolder(run) for run in runs]
    where = several.write(folders, out or Path("report.html"))
    table = several.figures_table(folders)
    if as_json:
        names = ("model", "figure", "mean", "low", "high", "runs")
        figures = [dict(zip(names, row, strict=True)) for row in table.rows]
        print_json({"report": str(where), "figures": figures, "differs": several.differing(folders)})
        return
    if table.rows:
        for told in several.differing(folders):
            say(told)
        show_table(table)
    say(f"report: {where}")


@chat.command(name="eval")
@RUN
@click.option("--rows", type=click.IntRange(1), metavar="N", help="Held-out rows. [as in the recipe]")
@click.option("--temperature", **TEMPERATURE, help="Of the responses. [as in the recipe]")
@click.option("--rewards", type=click.Path(path_type=Path), metavar="DIR", help="Where a reward's module is. [.]")
@DEVICE
@json_option
def evaluate(run: Path, rewards: Path | None, as_json: bool, **how: Any) -> None:  # noqa: ANN401 - the rest of `again`
    """Measure a run's models on held-out rows, before and after.

    \b
    tandem chat eval runs/first --rows 500 --temperature 0
    """
    from tandem.chat import evaluating, page

    with progress("models", quiet=as_json) as tell:
        done = evaluating.again(run, rewards or Path.cwd(), progress=tell, **how)
    where = page.write(done)
    if as_json:
        print_json(done.read_json("eval.json"))
        return
    _tell(done)
    say(f"report: {where}")


@chat.command()
@RUN
@click.option("--model", default="", metavar="NAME", help="start, sft, rl, rl-average. [the last stage's]")
@click.option("--system", default="", metavar="TEXT", help="What the model is told first.")
@click.option("--temperature", **TEMPERATURE, default=0.7, show_default=True, help="0: none.")
@click.option("--tokens", type=click.IntRange(1), default=256, show_default=True, metavar="N", help="Of a reply.")
@click.option("--seed", type=SEED, default=0, show_default=True, metavar="N", help="Of chance.")
@DEVICE
@json_option
def talk(run: Path, as_json: bool, **asked: Any) -> None:  # noqa: ANN401 - the rest of a Talk
    """Talk with a run's model; Ctrl-D ends it, /new forgets what was said.

    With --json it answers every line of its input, and prints what was said at the end. A line that is refused ends it,
    unless it is typed at a terminal.

    \b
    tandem chat talk runs/first --system "Answer briefly." --temperature 0
    """
    from tandem.chat.talk import begun

    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # what is no UTF-8 is refused in words
    talking = begun(run, **asked)
    try:
        for said in sys.stdin if as_json else _prompted():
            line = said.rstrip("\n")
            if line == "/new":
                talking.forget()
            elif line and as_json:
                talking.say(line)
            elif line:
                _reply(talking.say, line)
    finally:
        if as_json:
            print_json({"run": str(run), "messages": talking.messages})


@chat.command()
@RUN
@click.option("--model", default="", metavar="NAME", help="start, sft, rl, rl-average. [the last stage's]")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="0.0.0.0 lets all machines in.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="N", help="0: any.")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Made if absent. [RUN/serve-token]")
@click.option("--waiting", type=click.IntRange(1), default=64, show_default=True, metavar="N", help="Requests at most.")
@DEVICE
@json_option
def serve(run: Path, as_json: bool, **asked: Any) -> None:  # noqa: ANN401 - the rest of `serve`
    """Serve a run's model over HTTP, as clients of OpenAI's chat completions expect it; Ctrl-C ends it.

    A client shows the token, which is told once, when it is made. Requests are answered one after the other.

    \b
    tandem chat serve runs/first --port 8000
    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1
    export OPENAI_API_KEY=$(cat runs/first/serve-token)
    """
    from tandem.chat.serve.server import Serving
    from tandem.chat.serve.server import serve as run_server

    def ready(serving: Serving) -> None:
        told = {"url": serving.url, "model": serving.model, "token_file": str(serving.token_file)}
        if as_json:
            click.echo(json.dumps(told))
            return
        say(f"{serving.model} of {run}: {serving.url}")
        say(
            f"token: {serving.token} (kept in {serving.token_file})"
            if serving.new_token
            else "token: " + told["token_file"]
        )

    run_server(run, ready=ready, **asked)


@contextmanager
def _quiet_unless(first: bool) -> Iterator[None]:
    """Let the first rank tell that all were stopped; a mistake tells whoever meets it: its end ends the others."""
    from tandem.chat.errors import StoppedError

    try:
        yield
    except StoppedError as error:
        if first:
            raise
        click.get_current_context().exit(error.exit_code)


def _prompted() -> Iterator[str]:
    while True:
        try:
            yield click.prompt("you", prompt_suffix="> ", default="", show_default=False)
        except click.Abort:
            click.echo()
            return


def _reply(say_to: Callable[..., str], said: str) -> None:
    """Show a reply as it is drawn; at a terminal a line that is refused is told, and does not end the talk."""
    from tandem.chat.errors import RowsError
    from tandem.core.errors import one_line

    pieces: list[str] = []

    def show(piece: str) -> None:
        told = "\n".join(one_line(line) for line in piece.split("\n"))
        click.echo(told if pieces else f"model> {told}", nl=False)
        pieces.append(piece)

    try:
        say_to(said, on_text=show)
    except RowsError as error:
        if not sys.stdin.isatty():
            raise
        say_err(f"tandem: {error}")
    finally:
        if pieces:
            click.echo()


def _tell(run: RunFolder) -> None:
    from tandem.chat import measured, page

    table = page.figures_table(run)
    if table.rows:
        if told := measured.differs(run):
            say(told)
        show_table(table)
    elif nothing := page.nothing_measured(run):
        say(nothing)
