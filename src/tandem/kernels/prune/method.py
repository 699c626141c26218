"""What a pruning method is: a file of `methods/` with a function `prune` and a word on what it needs.

To add one, write `methods/NAME.py`; `--method NAME` and the contract test find it by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from tandem.core import plug
from tandem.kernels.prune.errors import PruneError

if TYPE_CHECKING:
    from torch import Tensor

    from tandem.kernels.prune.inputs import Inputs
    from tandem.kernels.prune.pattern import Pattern

FAMILY = "kernels.prune.methods"


class Method(Protocol):
    """What a file of `methods/` exposes."""

    NEEDS_INPUTS: bool
    """Whether it looks at the layer's inputs; it is never called without them then."""

    def prune(self, weight_RK: Tensor, inputs: Inputs | None, pattern: Pattern) -> Tensor:
        """Return the weight with its zeros, in the same dtype; the given one stays as it is.

        Args:
            weight_RK: R outputs, K inputs; finite.
            inputs: What the layer saw of the calibration text.
            pattern: At least that many zeros, and where they may lie.
        """
        ...


def load(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UnknownPluginError: There is none; the message lists those there are.
        MissingPackageError: torch is not installed; the message names the extra.
    """
    return cast("Method", plug.load(FAMILY, name, Method))


def check(name: str, method: Method, pattern: Pattern, has_text: bool, *, by_outliers: bool) -> None:
    """Refuse a wish that cannot be met.

    Raises:
        PruneError: The method or OWL needs a text and there is none, or OWL is asked for with N:M.
    """
    if by_outliers and pattern.of:
        raise PruneError(
            given=f"--owl with {pattern}",
            allowed="OWL with --sparsity: it gives every block its own share of zeros",
            todo="leave one of the two out",
        )
    if (method.NEEDS_INPUTS or by_outliers) and not has_text:
        raise PruneError(
            given=f"{'--owl' if by_outliers else f'--method {name}'} without a calibration text",
            allowed="a text file whose words are like those the model will meet",
            todo="give --calibration FILE, or take --method magnitude",
        )
