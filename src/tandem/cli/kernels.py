"""`tandem kernels`: what sparse weights gain on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Never, cast

import click

from tandem.cli import reports
from tandem.cli.group import Nouns
from tandem.cli.prune import prune
from tandem.cli.terminal import json_option, print_json, say, say_pairs, show_table
from tandem.core.clean_stdout import hush_deepspeed
from tandem.core.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from tandem.kernels.sparse.measuring import Comparison

_BYTES_A_WEIGHT = 60  # of memory, while a shape is measured: the dense types, their packed forms, what pruning takes


@click.group(cls=Nouns, subcommand_metavar="COMMAND ...", no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def kernels(ctx: click.Context) -> None:
    """Sparse weights: prune a model, store it compressed, run it faster.

    \b
    tandem kernels info
    tandem kernels bench --shape 4096x4096 --count 1,8
    tandem kernels prune llama/ llama-60/ --sparsity 0.6 --calibration some.txt
    """
    hush_deepspeed()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@kernels.command()
@json_option
def info(as_json: bool) -> None:
    """Which backends run on this machine, and why others do not.

    \b
    tandem kernels info
    """
    from tandem.core import plug
    from tandem.kernels.sparse import choosing

    told = choosing.reasons()
    try:
        paths = list(cast("Any", plug.load("kernels.sparse.backends", "cpu")).paths())
    except MissingPackageError:  # the reason is among those told
        paths = []
    if as_json:
        backends = {name: {"runs": not why, "why_not": why} for name, why in told.items()}
        print_json({"backends": backends, "cpu_paths": paths})
        return
    say_pairs((name, why or "runs here") for name, why in told.items())
    if paths:
        say_pairs([("cpu paths", f"{', '.join(paths)}; the first is used")])


@kernels.command()
@click.option("--shape", "shapes", multiple=True, metavar="MxK", help="Outputs x inputs, repeatable. [4096x4096]")
@click.option("--count", default="1,8", show_default=True, metavar="N,...", help="Rows of x.")
@click.option("--zeros", default="0.5,0.6,0.7,0.8", show_default=True, metavar="SHARE,...", help="Shares of zeros.")
@click.option("--values", default="bf16", show_default=True, metavar="TYPE,...", help="bf16, fp16 or int8.")
@click.option("--report", metavar="DIR", help="Where report.html with the pictures is written.")
@json_option
def bench(shapes: tuple[str, ...], count: str, zeros: str, values: str, report: str | None, as_json: bool) -> None:
    """Time sparse products beside every dense one of this machine.

    Matrices come from memory, not from a cache: each has as many copies as fill four of the largest caches, but for
    small ones and dense products that are hopelessly slow.

    \b
    tandem kernels bench
    tandem kernels bench --shape 11008x4096 --count 1 --values bf16,int8 --report .
    """
    from tandem.core import plug

    plug.load("kernels.sparse.backends", "portable")  # torch missing is said before all else
    from tandem.kernels.sparse import pictures

    where, trouble = reports.target(report), None
    shares, counts = _numbers(zeros, float, 0.0, 1.0, "--zeros"), _numbers(count, int, 1, 4096, "--count")
    asked, kinds = dict.fromkeys(_shape(text) for text in shapes or ("4096x4096",)), _kinds(values)
    for shape in asked:
        _must_fit(shape, shares, kinds)
    compared = [one for shape in asked for one in _compare(shape, counts, shares, kinds)]
    if as_json:
        print_json([_as_dict(one) for one in compared])
    else:
        for one in compared:
            show_table(pictures.table(one))
    if where is not None:
        trouble = reports.write(pictures.page(compared, _machine()), where)
        if trouble:
            raise trouble
        if not as_json:
            say(f"report: {where}")


def _compare(
    shape: tuple[int, int], counts: list[int], zeros: list[float], kinds: Sequence[torch.dtype]
) -> list[Comparison]:
    import torch

    from tandem.kernels.sparse.contenders import Dense, pruned
    from tandem.kernels.sparse.measuring import measure

    dense_MK = torch.randn(*shape)
    weights, dense = pruned(dense_MK, zeros, kinds), Dense(dense_MK)
    return [measure(dense, weights, count) for count in counts]


def _kinds(values: str) -> list[torch.dtype]:
    from tandem.kernels.sparse.format import VALUE_TYPES

    types = {name: dtype for dtype, name in VALUE_TYPES.items()}
    wanted = list(dict.fromkeys(values.split(",")))
    if unknown := set(wanted) - types.keys():
        _refuse("--values", min(unknown), ", ".join(types))
    return [types[name] for name in wanted]


def _shape(text: str) -> tuple[int, int]:
    rows, _, cols = text.partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and 0 < int(rows) <= 1 << 17 and 0 < int(cols) <= 1 << 17):
        _refuse("--shape", text, "two numbers up to 131072, such as 4096x4096")
    return int(rows), int(cols)


def _must_fit(shape: tuple[int, int], zeros: list[float], kinds: Sequence[torch.dtype]) -> None:
    """Refuse a shape that would not fit into memory: while it is pruned, or with all copies."""
    from tandem.core.machine import available_bytes
    from tandem.kernels.sparse.contenders import CACHES, cache_bytes, most_bytes

    (rows, cols), there = shape, available_bytes() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = max(_BYTES_A_WEIGHT * rows * cols, most_bytes(rows, cols, zeros, kinds))
    if needed > there:
        _refuse(
            "--shape",
            f"{rows}x{cols}",
            f"what fits into memory with its copies, which fill {CACHES} caches of {cache_bytes() >> 20} MiB each: all "
            f"take up to {needed / 2**30:.0f} GiB, and {there / 2**30:.0f} are free; ask for fewer --zeros or --values",
        )


def _numbers(text: str, kind: type[float], least: float, most: float, option: str) -> list[Any]:
    try:
        numbers = list(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        numbers = []
    if not numbers or not all(least <= number <= most for number in numbers):
        _refuse(option, text, f"numbers from {least:g} to {most:g}, separated by commas")
    return numbers


def _refuse(option: str, given: str, allowed: str) -> Never:
    message = f"{option} {given!r}; allowed: {allowed}"
    raise click.UsageError(message)


def _as_dict(one: Comparison) -> dict[str, Any]:
    return {
        "rows": one.rows,
        "cols": one.cols,
        "count": one.count,
        "threads": one.threads,
        "read_bytes_per_s": one.read_bytes_per_s,
        "from_memory": one.from_memory,
        "clock_hz": one.clock_hz,
        "best_dense": one.best_dense.name,
        "products": [
            {
                "name": timed.name,
                "zeros": timed.zeros,
                "size_bytes": timed.size_bytes,
                "median_s": timed.median_s,
                "ns_per_32": one.ns_per_32(timed),
                "cycles_per_32": one.cycles_per_32(timed) or None,
                "speedup": one.speedup(timed),
            }
            for timed in (*one.ours, *one.dense)
        ],
    }


def _machine() -> str:
    from tandem.core import machine

    return machine.discover().fingerprint


kernels.add_command(prune)
