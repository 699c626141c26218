"""Which way of multiplying is fastest here, measured once for every kind of product and kept on disk.

A product is known by shape, type, tenths of density, rows of x up to a power of two, threads, the device, and the
processor's instruction set or the GPU's backend. The first of its kind is measured (some milliseconds), what was chosen
is logged and written to `$XDG_CACHE_HOME/tandem/sparse-tuning-DEVICE.json`; `TANDEM_SPARSE_TUNING` names another
folder. Of several processes that measure the same at once the first one's choice is kept, and the others take it. A
file that cannot be read or written, or whose word is no way of this product, only means that it is measured again.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from tandem.core.data_folder import cache_folder
from tandem.core.durable import locked, written_aside
from tandem.kernels.sparse.format import VALUE_TYPES, SparseWeight

Candidate = Callable[[], torch.Tensor]

_TRIES = 7
_FAIR_TRIES = 2
_FAIR_S = 0.02
"""Longer than somebody else usually has a core: tries that took less may both have been disturbed."""
_HOPELESS = 3.0
_CLEARLY = 1.1
"""By how much another way must be faster than the first to be chosen: a choice is kept for long."""
_PATIENCE_S = 1.0
"""How long a product waits for another process that writes; once, from then on it is not waited for."""

_log = logging.getLogger(__name__)
_known: dict[Path, dict[str, str]] = {}
_unlocked: set[Path] = set()
_unkept: set[Path] = set()
_at_hand: dict[tuple[object, ...], str] = {}
"""The same by what makes a key: a product of some hundred microseconds should not wait for texts and files."""


def bucket(count: int) -> int:
    """Return the power of two at or above a number of rows.

    >>> [bucket(n) for n in (1, 3, 8, 9)]
    [1, 4, 8, 16]
    """
    return 1 << max(0, count - 1).bit_length()


def chosen(
    weight: SparseWeight,
    x_type: torch.dtype,
    count: int,
    candidates: Callable[[SparseWeight, torch.Tensor], dict[str, Candidate]],
    *,
    by: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """Return the fastest candidate's name for products of this kind.

    Args:
        weight: One of the weights.
        x_type: The type of x.
        count: Rows of x that are tried, as `bucket` gives them.
        candidates: Makes the functions that are timed, by name; the first is the usual one.
        by: Whose candidates they are: a GPU's backend, or the processor's path.
        clock: Seconds; tests pass their own.
    """
    kind = _kind(weight, x_type, count, by)
    if kind in _at_hand:
        return _at_hand[kind]
    path, key = _place(weight, x_type, count, by)
    own = torch.Generator(weight.device).manual_seed(0)  # a program's random numbers are its own
    x_NK = torch.randn(count, weight.cols, dtype=torch.float32, device=weight.device, generator=own).to(x_type)
    found = candidates(weight, x_NK)
    if _known[path].get(key) not in found:
        times_s = _times_s(found, clock)
        usual = next(iter(times_s))
        best = min(times_s, key=lambda name: times_s[name] * (1 if name == usual else _CLEARLY))
        told = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in sorted(times_s.items()))
        _keep(path, key, best, found)
        _log.info("sparse product %s: %s (%s)", key, _known[path][key], told)
    return _at_hand.setdefault(kind, _known[path][key])


def known(weight: SparseWeight, x_type: torch.dtype, count: int, *, by: str = "") -> str:
    """Return what was chosen before for products of this kind, empty where nothing was; nothing is measured.

    What was read from disk is not checked: it may be no way of this product.
    """
    at_hand = _at_hand.get(_kind(weight, x_type, count, by))
    if at_hand is not None:
        return at_hand
    path, key = _place(weight, x_type, count, by)
    return _known[path].get(key, "")


def forget() -> None:
    """Read what is on disk, try its lock, and tell what goes wrong, again at the next product."""
    _known.clear()
    _unlocked.clear()
    _unkept.clear()
    _at_hand.clear()


def _kind(weight: SparseWeight, x_type: torch.dtype, count: int, by: str) -> tuple[object, ...]:
    """Return all that a choice and its place depend on."""
    tenths, threads = round(weight.density, 1), torch.get_num_threads()
    folders = os.environ.get("TANDEM_SPARSE_TUNING"), os.environ.get("XDG_CACHE_HOME")
    return by, weight.rows, weight.cols, weight.values_P.dtype, tenths, x_type, count, threads, weight.device, *folders


def _place(weight: SparseWeight, x_type: torch.dtype, count: int, by: str) -> tuple[Path, str]:
    """Return the device's file, read if it was not, and the key in it."""
    path = _file(weight.device)
    if path not in _known:
        _known[path] = _read(path)
    return path, f"{by} {_key(weight, x_type, count)}".strip()


def _key(weight: SparseWeight, x_type: torch.dtype, count: int) -> str:
    kind, x_kind = VALUE_TYPES[weight.values_P.dtype], str(x_type).removeprefix("torch.")
    return f"{weight.rows}x{weight.cols} {kind} {weight.density:.1f} x{count} {x_kind} {torch.get_num_threads()}"


def _times_s(candidates: Mapping[str, Candidate], clock: Callable[[], float]) -> dict[str, float]:
    """The shortest time of each, taken in turns: who else used the machine meanwhile is no reason to choose.

    What is hopeless after two turns that took some time is left alone from then on: it may take long.
    """
    times_s, spent_s = dict.fromkeys(candidates, float("inf")), dict.fromkeys(candidates, 0.0)
    for turn, (name, run) in itertools.product(range(_TRIES), candidates.items()):
        is_known = turn >= _FAIR_TRIES and spent_s[name] > _FAIR_S
        if is_known and times_s[name] > _HOPELESS * min(times_s.values()):
            continue
        began_s = clock()
        run()
        took_s = clock() - began_s
        spent_s[name] += took_s
        times_s[name] = min(times_s[name], took_s)
    return times_s


def _file(device: torch.device) -> Path:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    plain = "".join(sign if sign.isalnum() else "-" for sign in name).strip("-").lower()
    return _folder() / f"sparse-tuning-{plain}.json"


def _folder() -> Path:
    own = os.environ.get("TANDEM_SPARSE_TUNING")
    return Path(own) if own else cache_folder(os.environ, os.geteuid())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")


def _read(path: Path) -> dict[str, str]:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {str(key): str(value) for key, value in told.items()}


def _keep(path: Path, key: str, best: str, names: Collection[str]) -> None:
    """Write a choice down, unless another process has written one of the names since: then that is known here too."""
    with ExitStack() as held:
        if path not in _unlocked:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(path.with_suffix(".lock"), patience_s=_PATIENCE_S))
            except OSError as error:  # held for long, or no locks there: what is written is most often kept
                _unlocked.add(path)
                _log.warning("%s is written without a lock from now on: %s", path, error.strerror)
        there = _read(path)
        _known[path] |= there if there.get(key) in names else there | {key: best}
        try:
            with written_aside(path) as out:
                out.write(json.dumps(_known[path], indent=1, sort_keys=True).encode())
        except OSError as error:
            if path not in _unkept:
                _unkept.add(path)
                _log.warning("what is measured of sparse products cannot be kept in %s: %s", path, error.strerror)
