"""Keep a machine's calibration in a file, and read it back only where it holds."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tandem.core import machine as machines
from tandem.core.durable import FULL, room, written_aside
from tandem.core.errors import TandemError
from tandem.estimate.bubbles.calibrating import calibrate, with_gpu
from tandem.estimate.bubbles.calibration import FORMAT, Calibration, Response
from tandem.estimate.profile import GPU_KINDS, IN_WORDS, LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ROOM_BYTES = 1 << 16
"""A calibration takes less."""

_MOST_CORES = 8192
"""Linux is built for no more."""

_SHOWN = 60
"""Characters of a wrong value that are told."""

_log = logging.getLogger(__name__)


class CalibrationError(TandemError):
    """A stored calibration that does not hold here."""


class DamagedCalibrationError(CalibrationError):
    """A stored calibration that is absent or cannot be read: it can be made anew."""


def file_of(folder: Path, machine: str) -> Path:
    """Where a machine's calibration lies."""
    return folder / f"bubbles-{machine}.json"


def save(calibration: Calibration, folder: Path) -> Path:
    """Write it aside, make it durable and put it in place; return the file.

    Raises:
        CalibrationError: The folder cannot be written.
    """
    file = file_of(folder, calibration.machine)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_aside(file) as out:
            out.write(json.dumps({"format": FORMAT, **asdict(calibration)}).encode())
    except OSError as error:
        raise _unwritable(folder, error) from error
    return file


def load(folder: Path, *, machine: str | None = None) -> Calibration:
    """Read a machine's calibration.

    Args:
        folder: Where `save` put it.
        machine: The machine's fingerprint; None takes this one's.

    Raises:
        DamagedCalibrationError: There is none, or what there is cannot be read.
        CalibrationError: It was made on another machine or by another version.
    """
    machine = machine or machines.discover().fingerprint
    file = file_of(folder, machine)
    try:
        told: Any = json.loads(file.read_text())
        form = told["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(file, error) from error
    if form != FORMAT:
        raise CalibrationError(
            given=f"{file} in format {form}",
            allowed=f"format {FORMAT}, which this version of Tandem writes",
            todo="use the version that wrote it, or calibrate anew: tandem profile calibrate",
        )
    try:
        calibration = _read(told)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise _damaged(file, error) from error
    if calibration.machine != machine:
        raise CalibrationError(
            given=f"{file}, which was made on {calibration.machine}",
            allowed=f"a calibration of {machine}",
            todo="another machine's caches and disks answer differently: tandem profile calibrate makes it anew here",
        )
    return calibration


def cached(
    data: Path,
    *,
    cores: tuple[int, ...],
    folder: Path | None = None,
    gpu: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Calibration:
    """Return the calibration kept under ``data``, or calibrate (< 30 s) and keep it.

    One that was made on a different number of cores, or cannot be read, is made anew. Where a ``gpu`` is given and its
    kinds have not been calibrated, they are added (< 30 s more).

    Raises:
        CalibrationError: What is kept belongs to another machine or version.
        BubbleError: See `calibrate`.
        BubbleMissingError: The native part was not built.
    """
    try:
        made = load(data)
        enough = len(made.cores) == len(cores)
        if not enough:
            _log.info("the kept calibration is for %d cores, not %d: calibrating anew", len(made.cores), len(cores))
    except DamagedCalibrationError as error:
        _log.info("calibrating: %s", error)
        enough = False
    if not enough:
        return anew(data, cores=cores, folder=folder, gpu=gpu, progress=progress)
    if gpu is not None and not made.responses.keys() & set(GPU_KINDS):
        made = with_gpu(made, gpu, progress=progress)
        save(made, data)
    return made


def anew(
    data: Path,
    *,
    cores: tuple[int, ...],
    folder: Path | None = None,
    gpu: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Calibration:
    """Calibrate (< 30 s, with a ``gpu`` < 30 s more) and keep that under ``data`` instead of what is there.

    Raises:
        CalibrationError: It cannot be kept.
        BubbleError: See `calibrate`.
        BubbleMissingError: The native part was not built.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)  # what cannot be kept is not worth half a minute
        held = room(data, _ROOM_BYTES)
    except OSError as error:
        raise _unwritable(data, error) from error
    with held:
        made = calibrate(cores=cores, folder=folder, progress=progress)
        if gpu is not None:
            made = with_gpu(made, gpu, progress=progress)
    save(made, data)
    return made


def kept(data: Path) -> Calibration | None:
    """This machine's calibration as it is kept; None where there is none that can be used."""
    try:
        return load(data)
    except CalibrationError:
        return None


def why_not(data: Path) -> str:
    """One line that names a kept calibration that cannot be used, and what to do; "" where it can or none is there."""
    try:
        load(data)
    except CalibrationError as error:
        absent = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
        return "" if absent else f"left out: {error.given}: {error.todo}"
    return ""


def _read(told: dict[str, Any]) -> Calibration:  # the caller catches what does not fit
    responses = {
        str(kind): Response(
            tuple(float(level) for level in one["raw"]),
            tuple(float(slowdown) for slowdown in one["slowdowns"]),
            float(one["noise"]),
            scatter=float(one.get("scatter", 0.0)),
            waited=float(one.get("waited", 0.0)),
        )
        for kind, one in told["responses"].items()
    }
    found = Calibration(
        machine=str(told["machine"]),
        cores=tuple(int(core) for core in told["cores"]),
        responses=responses,
        lacking={str(kind): str(why) for kind, why in told["lacking"].items()},
        made=float(told["made"]),
        cost_s=float(told["cost_s"]),
    )
    if why := _senseless(found):
        raise ValueError(why)
    return found


def _senseless(calibration: Calibration) -> str:
    """Which value of it no calibrating can have given, in words; "" where all make sense."""
    if not calibration.responses:
        return "it is of no kind of bubble"
    if unknown := next((kind for kind in calibration.responses if kind not in IN_WORDS), None):
        return f"{unknown!r} is no kind of bubble"
    cores = calibration.cores
    if not cores or len(set(cores)) < len(cores) or not all(0 <= core < _MOST_CORES for core in cores):
        return f"cores are {list(cores)}"[:_SHOWN]
    values = [("made", calibration.made, 1e11), ("cost_s", calibration.cost_s, 1e9)]
    for one in calibration.responses.values():
        values += [("slowdowns", one.slowdowns[-1], LARGEST), ("noise", one.noise, LARGEST)]
        values += [("scatter", one.scatter, LARGEST), ("waited", one.waited, LARGEST)]
    return next((f"{name} is {value:g}" for name, value, most in values if not 0.0 <= value <= most), "")


def _unwritable(folder: Path, error: OSError) -> CalibrationError:
    full = error.errno in FULL
    return CalibrationError(
        given=f"the calibration cannot be kept in {folder} ({error.strerror or error})",
        allowed="a data folder with room for it" if full else "a data folder that you may write to",
        todo="make room, or let TANDEM_HOME name another" if full else "let TANDEM_HOME name one",
    )


def _damaged(file: Path, error: Exception) -> DamagedCalibrationError:
    if isinstance(error, FileNotFoundError):
        given, todo = f"no calibration in {file} (it does not exist)", "make it: tandem profile calibrate"
    else:
        given = f"the calibration in {file} is damaged ({type(error).__name__}: {error})"
        todo = "tandem profile calibrate makes it anew"
    return DamagedCalibrationError(
        given=given, allowed="a file that calibrating this machine's bubbles wrote", todo=todo
    )
