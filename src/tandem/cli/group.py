"""Commands below a noun, such as `tandem data` and `tandem kernels`."""

from __future__ import annotations

import click

from tandem.cli import mistakes


class Nouns(click.Group):
    """A group that names the nearest sub-command to one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise mistakes.unknown_command(args[0], list(self.commands), ctx)
        return super().resolve_command(ctx, args)
