"""The memory bandwidth of this machine: measured in short bursts, and kept with when and under which load.

What else runs takes its part of the bandwidth while it is measured. The best burst comes nearest to what the memory
can do, but on a busy machine all of them are too low: the load is kept with the figure, `tandem doctor` tells it, and
`tandem doctor --measure` measures anew.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tandem.core.durable import written_aside
from tandem.core.machine import Hardware

BUSY = 0.5
"""A load average above this part of the cores casts doubt on a measurement."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """One measurement.

    Attributes:
        host: The machine's name.
        cores: The logical processors that streamed together.
        mbs: MB/s of the best burst.
        measured_at: When, in Unix seconds.
        load: The load average over the minute before.
    """

    host: str
    cores: tuple[int, ...]
    mbs: int
    measured_at: float
    load: float

    @property
    def doubtful(self) -> bool:
        """Whether so much ran meanwhile that it may be too low."""
        return self.load > BUSY * len(self.cores)


def kept(file: Path) -> Bandwidth | None:
    """Return the measurement that a file holds; None where there is none, or one of another form."""
    try:
        told = json.loads(file.read_text())
        cores = tuple(int(core) for core in told["cores"])
        return Bandwidth(str(told["host"]), cores, int(told["mbs"]), float(told["measured_at"]), float(told["load"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_of(found: Bandwidth, hardware: Hardware) -> bool:
    """Whether a measurement is of this machine and of these very cores."""
    return (found.host, found.cores) == (hardware.hostname, _cores(hardware))


def measure(hardware: Hardware, now: float) -> Bandwidth:
    """Measure now (about a second)."""
    load = os.getloadavg()[0]
    mbs = int(hardware.memory_bandwidth_bytes_per_s / 1e6)
    return Bandwidth(hardware.hostname, _cores(hardware), mbs, now, load)


def keep(file: Path, found: Bandwidth) -> None:
    """Keep a measurement in `file`.

    Raises:
        OSError: It cannot be written.
    """
    with written_aside(file) as out:
        out.write(json.dumps(asdict(found)).encode())


def _cores(hardware: Hardware) -> tuple[int, ...]:
    return tuple(core.index for core in hardware.cores)
