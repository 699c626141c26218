"""What can be wrong with sparse weights, one class a kind."""

from tandem.core.errors import TandemError


class SparseShapeError(TandemError):
    """Shapes, types or devices that do not fit together."""


class SparseFormatError(TandemError):
    """A stored sparse weight that is damaged, or that this program cannot read."""


class BackendError(TandemError):
    """A backend that cannot run on this machine."""
