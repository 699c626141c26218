"""Whether this machine could run a lab's day at all: asked before anything is made or started."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.core.errors import ConfigError, ImpossibleDemandError
from tandem.share.daemon.submission import Submitter, read
from tandem.share.lab.plan import submission
from tandem.share.node import local_node
from tandem.share.scheduler.admission import check

if TYPE_CHECKING:
    from tandem.core.machine import Hardware
    from tandem.share.lab.plan import Lab


def check_here(lab: Lab, hardware: Hardware | None = None) -> None:
    """Refuse a day with a job that this machine could never run, in the daemon's own words.

    Args:
        hardware: what there is, if it is known already.

    Raises:
        ImpossibleDemandError: names the job, the resource and the most there is.
        ConfigError: the day's cores are not there, or a job's key has a value that no submission may have.
    """
    options = {"membw": "off"} | ({"cores": lab.cores} if lab.cores else {})
    node = local_node.discover(options, Path(os.devnull), hardware).node
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
