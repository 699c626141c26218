"""Mistakes of somebody who prunes a model."""

from __future__ import annotations

from tandem.core.errors import TandemError


class PruneError(TandemError):
    """A model, a text or a wish that cannot be pruned, read or met."""
