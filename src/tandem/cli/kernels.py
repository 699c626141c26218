"""`tandem kernels`: what sparse weights gain on this machine."""

from __future__ import annotations

import click

from tandem.cli import mistakes
from tandem.cli.prune import prune
from tandem.cli.terminal import json_option, print_json, say_pairs


class _Kernels(click.Group):
    """A group that names the nearest sub-command to one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise mistakes.unknown_command(args[0], list(self.commands), ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Kernels, subcommand_metavar="COMMAND ...", no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def kernels(ctx: click.Context) -> None:
    """Sparse weights: prune a model, store it compressed, run it faster.

    \b
    tandem kernels info
    tandem kernels prune llama/ llama-60/ --sparsity 0.6 --calibration some.txt
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@kernels.command()
@json_option
def info(as_json: bool) -> None:
    """Which backends run on this machine, and why others do not.

    \b
    tandem kernels info
    """
    from tandem.kernels.sparse import choosing

    told = choosing.reasons()
    if as_json:
        print_json({name: {"runs": not why, "why_not": why} for name, why in told.items()})
        return
    say_pairs((name, why or "runs here") for name, why in told.items())


kernels.add_command(prune)
