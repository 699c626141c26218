"""The `tandem` command. A sub-command's module is imported when it runs, so that help is immediate.

To add a command, write its module and name it in `COMMANDS`; a test checks that the command's own help begins so.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, cast

import click

from tandem import __version__
from tandem.cli import mistakes

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "submit": ("submit", "Queue a job; says when it will be done."),
        "wait": ("wait", "Wait until jobs have ended."),
        "cancel": ("control", "Stop jobs, or take them out of the queue."),
        "hold": ("control", "Keep waiting jobs from starting."),
        "release": ("control", "Let held jobs go."),
        "lab": ("lab", "Run a file of jobs for real: a lab's hybrid day."),
    },
    "Look": {
        "queue": ("queue", "Jobs that run and jobs that wait."),
        "show": ("show", "All about one job, and why it waits."),
        "logs": ("logs", "What a job has printed."),
        "history": ("history", "Jobs that have ended."),
        "promises": ("promises", "How often the quoted finish times were right."),
    },
    "Plan": {
        "simulate": ("simulate", "Play a trace under one policy."),
        "compare": ("compare", "Play a trace under several policies, side by side."),
        "profile": ("profile", "Measure what slows a programme, and whom it slows."),
        "estimate": ("estimate", "How long applications would take together on this machine."),
        "replay": ("replay", "Decide a stored day again, and compare."),
    },
    "Data": {
        "data": ("data", "Many small files as one fast, checked, seekable space."),
    },
    "Kernels": {
        "kernels": ("kernels", "Sparse weights: prune a model, store it compressed, run it faster."),
    },
    "Learn": {
        "chat": ("chat", "Teach a language model by demonstrations, preferences, rewards."),
    },
    "Machine": {
        "up": ("up", "Start the daemon (the first command does it by itself)."),
        "down": ("up", "Stop the daemon; its jobs run on."),
        "nodes": ("nodes", "Cores, GPUs and memory, and who has them."),
        "doctor": ("doctor", "What this machine has, and which protections it gives."),
    },
}
"""Section -> command -> (module in this package, the line shown in `tandem --help`)."""

_MODULES = {name: module for section in COMMANDS.values() for name, (module, _) in section.items()}
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class Tandem(click.Group):
    """A group that knows its commands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order of the help."""
        del ctx
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        del ctx
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"tandem.cli.{_MODULES[cmd_name]}")
        return cast("click.Command", getattr(module, cmd_name))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Answer `--version` and `--help` in JSON where that is asked for before any command."""
        own = list(itertools.takewhile(lambda word: word.startswith("-"), args))
        if "--json" not in own:
            return super().parse_args(ctx, args)
        if {"-h", "--help"} & {*own} or own == args == ["--json"]:
            lines = {name: line for commands in COMMANDS.values() for name, (_, line) in commands.items()}
            click.echo(json.dumps({"version": __version__, "commands": lines}, indent=2))
            ctx.exit()
        if "--version" in own:
            click.echo(json.dumps({"version": __version__}, indent=2))
            ctx.exit()
        if own != args:
            message = f"--json stands behind the command: `tandem {args[len(own)]} --json`"
            raise click.UsageError(message, ctx)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing them, then the options."""
        width = max(map(len, _MODULES))
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), line) for name, (_, line) in commands.items()])
        click.Command.format_options(self, ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is named with the nearest right one."""
        if args[0] not in _MODULES and not args[0].startswith("-"):
            raise mistakes.unknown_command(args[0], list(_MODULES), ctx)
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]  # it never returns, standalone or not
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 - as click has it
    ) -> Never:
        """Run; a mistake becomes one line on stderr and an exit status, never a traceback."""
        _open_streams()
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        sys.exit(_guarded(lambda: super(Tandem, self).main(given, prog_name or "tandem", **extra), given))


def _open_streams() -> None:
    """Somebody closed a stream (`>&-`, `<&-`): what is written there goes nowhere, and there is nothing to read."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open until the end


def _guarded(run: Any, given: Sequence[str]) -> int:  # noqa: ANN401 - click's main answers with anything
    try:
        status = run()
        sys.stdout.flush()
    except BrokenPipeError:
        return _quiet_pipe()
    except mistakes.SHOWN as error:
        status = mistakes.report(error, as_json=mistakes.asked_for_json(given))
        try:
            sys.stdout.flush()
        except OSError:
            _into_nothing()
    except (click.Abort, KeyboardInterrupt) as end:
        if isinstance(end.__cause__, EOFError):  # click makes it of every one, though nobody pressed Ctrl-D
            raise end.__cause__ from None
        return _INTERRUPTED
    except SystemExit as end:  # click found a broken pipe
        return _quiet_pipe() if end.code == 1 else int(end.code or 0)
    return status if isinstance(status, int) else 0


def _quiet_pipe() -> int:
    """Nobody reads any more (`| head`)."""
    _into_nothing()
    return _BROKEN_PIPE


def _into_nothing() -> None:
    """What waits to be printed never can be: let the interpreter flush it into nothing."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=Tandem,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, "--version", message="tandem %(version)s")
@click.option("--json", is_flag=True, expose_value=False, help="With --help or --version: one JSON document.")
@click.pass_context
def tandem(ctx: click.Context) -> None:
    """Run CPU and GPU jobs together on the machines you have. Every job is quoted a finish time.

    \b
    tandem submit --cpus 4 --gpus 1 --expected 20m -- python train.py
    tandem queue --watch
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Entry point of the command."""
    try:
        tandem.main()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            # All is closed: another could only spoil the exit status, or, on its way while it comes to be ignored, be
            # told of on standard error as a race.
            sys.unraisablehook = lambda unraisable: None
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise
