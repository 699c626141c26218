"""Mistakes in what training is given."""

from __future__ import annotations

from tandem.core.errors import TandemError


class TrainingInputError(TandemError):
    """Numbers, shapes or settings that nothing can be learnt from."""


class RankError(TandemError):
    """Processes that train together and cannot: one of them ended, or they were started in another way than asked."""
