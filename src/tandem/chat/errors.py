"""Mistakes of somebody who trains a chat model."""

from __future__ import annotations

from tandem.core.errors import TandemError


class RowsError(TandemError):
    """Data that cannot be read, rows that are bad, or none left."""


class RewardError(TandemError):
    """A reward function that is not there, raises, or returns what is no score for each response."""


class StageError(TandemError):
    """A stage that the recipe does not have, or one without the stage before it."""


class ResumeError(TandemError):
    """A run that cannot go on: its recipe changed, or its checkpoint is damaged."""


class DivergedError(TandemError):
    """A loss or a gradient that is no finite number any more."""


class ShortOfMemoryError(TandemError):
    """Models or batches that do not fit into memory."""


class StoppedError(TandemError):
    """A run that was asked to stop and has saved where it is."""

    exit_code = 130
