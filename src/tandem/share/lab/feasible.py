"""Whether this machine could run a lab's day at all: asked before anything is made or started."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.core.errors import ConfigError, ImpossibleDemandError, MachineBusyError
from tandem.core.process import locks
from tandem.share.daemon.submission import Submitter, read
from tandem.share.lab.plan import submission
from tandem.share.node import local_node
from tandem.share.scheduler.admission import check

if TYPE_CHECKING:
    from collections.abc import Collection

    from tandem.core.machine import Hardware
    from tandem.share.lab.plan import Lab
    from tandem.share.model import Node


def check_here(lab: Lab, hardware: Hardware | None = None) -> None:
    """Refuse a day with a job that this machine could never run, in the daemon's own words.

    Args:
        hardware: what there is, if it is known already.

    Raises:
        ImpossibleDemandError: names the job, the resource and the most there is.
        ConfigError: the day's cores are not there, or a job's key has a value that no submission may have.
    """
    node = _node(lab, hardware)
    who = Submitter(os.geteuid(), os.getegid())
    for job in lab.jobs:
        alone = replace(job, after=())
        try:
            [(asked, _)] = read(submission(lab, alone, {}, gpus_here=len(node.gpus), cwd=Path("/")), who, {}, 1, "/")
            check(asked, [node], ())
        except (ImpossibleDemandError, ConfigError) as error:
            raise type(error)(
                given=f"job {job.name!r}: {error.given}", allowed=error.allowed, todo=error.todo
            ) from None


def check_idle(lab: Lab) -> None:
    """Refuse a day on cores that another scheduler of this machine gives out now: a day has to be measured alone.

    Raises:
        MachineBusyError: says which cores.
    """
    busy = locks.foreign_holders("cores", _node(lab).cores)
    if busy:
        raise busy_cores(busy)


def busy_cores(cores: Collection[int]) -> MachineBusyError:
    """The error for cores that are not free for a day."""
    return MachineBusyError(
        given=f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, sorted(cores)))} used by another scheduler",
        allowed="a machine of its own for the time of a lab day",
        todo="wait, or give the lab other cores with --set cores=...",
    )


def _node(lab: Lab, hardware: Hardware | None = None) -> Node:
    options = {"membw": "off"} | ({"cores": lab.cores} if lab.cores else {})
    return local_node.discover(options, Path(os.devnull), hardware).node
