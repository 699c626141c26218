"""Which backend computes: the one that was asked for, or the best that runs here; never a silent other one."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Protocol, cast

from tandem.core import plug
from tandem.core.errors import MissingPackageError
from tandem.kernels.sparse.mistakes import BackendError

if TYPE_CHECKING:
    import torch

    from tandem.kernels.sparse.format import SparseWeight

_FAMILY = "kernels.sparse.backends"
_ORDER = {"cuda": ("cuda", "triton", "portable"), "cpu": ("cpu", "portable")}
_log = logging.getLogger(__name__)


class Backend(Protocol):
    """What a file in `backends` exposes."""

    DEVICE: str
    """The type of device whose tensors it takes: `cpu`, `cuda`, or `any`."""

    TOLERANCE: float
    """How far a result may be from the reference, relative to the sum of the products' absolute values."""

    def supported(self) -> str:
        """Return why this backend cannot run on this machine; empty where it can."""

    def forward(self, weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
        """Return `x_NK @ weight.T` in float32, `[N, M]`."""


@functools.cache
def backend(name: str) -> Backend:
    """Return the backend called `name`, which must run here.

    Raises:
        UnknownPluginError: There is none of that name.
        BackendError: It cannot run on this machine; the message says why.
        MissingPackageError: It needs a package that is not installed.
    """
    found = cast("Backend", plug.load(_FAMILY, name, Backend))
    if why := found.supported():
        runs = [other for other, reason in reasons().items() if not reason]
        raise BackendError(
            given=f"backend {name!r}, but {why}",
            allowed=", ".join(runs),
            todo="leave the backend out to have the best that runs here",
        )
    return found


def for_device(name: str, device: str) -> Backend:
    """Return the backend called `name`, which must run here and take tensors of a type of device.

    Raises:
        UnknownPluginError: There is none of that name.
        BackendError: It cannot run on this machine, or computes elsewhere than where the tensors are.
    """
    found = backend(name)
    if found.DEVICE not in (device, "any"):
        raise BackendError(
            given=f"backend {name!r}, which computes on {found.DEVICE!r}, and tensors on {device!r}",
            allowed=", ".join(other for other in _ORDER.get(device, ()) if not reasons()[other]),
            todo="move the tensors, or leave the backend out to have the best for where they are",
        )
    return found


@functools.cache
def best(device: str) -> str:
    """Return the name of the best backend for tensors on a type of device (`cpu`, `cuda`), and log it.

    Raises:
        BackendError: None runs for this device.
    """
    told = reasons()
    for name in _ORDER.get(device, ()):
        if not told[name]:
            passed = "".join(f"; not {other}: {told[other]}" for other in _ORDER[device] if told[other])
            _log.info("sparse products on %s by backend %s%s", device, name, passed)
            return name
    raise BackendError(
        given=f"sparse weights on device {device!r}",
        allowed=", ".join(_ORDER),
        todo="move the model to such a device, or install what `tandem kernels info` names",
    )


def reasons() -> dict[str, str]:
    """Return for every backend why it cannot run here; an empty text where it can."""
    return {name: _reason(name) for name in plug.names(_FAMILY)}


def _reason(name: str) -> str:
    try:
        return cast("Backend", plug.load(_FAMILY, name, Backend)).supported()
    except MissingPackageError as error:
        return f"{error.given}; {error.todo}"
