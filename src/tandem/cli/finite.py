"""Numbers of options, where ranges let through what is none."""

from __future__ import annotations

import math

import click


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse `nan` and `inf`, which ranges let through (a callback of an option)."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number", ctx, param)  # noqa: TRY003, EM102 - click's way
    return value
