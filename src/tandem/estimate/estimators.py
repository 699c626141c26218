"""Estimators by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from tandem.core import plug

if TYPE_CHECKING:
    from tandem.estimate.corun import CoRun, Estimator
    from tandem.estimate.profile import Profile


class Model(Protocol):
    """What a file in `tandem.estimate.models` exposes."""

    USES_PAIRS: bool
    """Whether it learns from co-runs that were observed."""

    USES_PROFILES: bool
    """Whether it predicts contention from profiles. (All but `none` take the use of cores from them.)"""

    @staticmethod
    def make(coruns: tuple[CoRun, ...], profiles: tuple[Profile, ...] = ()) -> Estimator:
        """An estimator that has seen ``coruns`` and holds ``profiles`` (of one machine, one an application)."""


def load(name: str) -> Model:
    """The model of that name.

    Raises:
        UnknownPluginError: there is none; says which there are.
    """
    return cast("Model", plug.load("estimate.models", name, Model))


def make(name: str, coruns: tuple[CoRun, ...] = (), profiles: tuple[Profile, ...] = ()) -> Estimator:
    """An estimator of the model ``name`` that has seen ``coruns`` and holds ``profiles``."""
    return load(name).make(coruns, profiles)


def names() -> list[str]:
    """All models that can be loaded by name."""
    return plug.names("estimate.models")
