"""`tandem nodes`: what there is, what is free, and who has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tandem.cli import words
from tandem.cli.moments import NONE
from tandem.cli.terminal import json_option, print_json, show_table
from tandem.core.units import human_size

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@json_option
def nodes(as_json: bool) -> None:
    """Cores, GPUs and memory, and who has them."""
    from tandem.report.table import Column, Table
    from tandem.share.daemon.client import Client

    with Client.connect() as client:
        found = client.nodes()
    if as_json:
        print_json(found)
        return
    names = ("NODE", "STATE", "CORES FREE", "GPUS FREE", "MEMORY FREE", "BANDWIDTH FREE", "JOBS", "USED BY OTHERS")
    minor = {"BANDWIDTH FREE", "USED BY OTHERS"}
    show_table(Table([Column(name, minor=name in minor) for name in names], [_row(node) for node in found]))


def _row(node: Mapping[str, Any]) -> tuple[str, ...]:
    has, free = node["capacity"], node["free"]
    kinds = sorted({gpu["type"] for gpu in node["gpus"] if gpu["type"]})
    gpus = f"{free['gpus']:g} of {has['gpus']:g}" + (f" {'/'.join(kinds)}" if kinds else "") if has["gpus"] else NONE
    outside = [f"cores {words.ranges(node['foreign_cores'])}"] if node["foreign_cores"] else []
    outside += [f"GPUs {words.ranges(node['foreign_gpus'])}"] if node["foreign_gpus"] else []
    return (
        node["id"],
        "up" if node["up"] else "down",
        f"{free['cpu_milli'] / 1000:g} of {has['cpu_milli'] / 1000:g}",
        gpus,
        f"{human_size(free['mem_mib'] << 20)} of {human_size(has['mem_mib'] << 20)}",
        "not known" if has["membw_mbs"] is None else f"{free['membw_mbs']:,} of {has['membw_mbs']:,} MB/s",
        words.ranges(node["jobs"]) or NONE,
        ", ".join(outside) or NONE,
    )
