"""How long applications take together: what was seen of them, and models that predict the rest.

from tandem import estimate

told = estimate.predict(["cg", "lu"])     # by the profiles that are kept on this machine
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tandem.estimate.asking import predict

__all__ = ["predict"]


def __getattr__(name: str) -> object:
    """`predict`, once it is asked for: whoever imports a module of this package need not load all that it takes."""
    if name != "predict":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from tandem.estimate.asking import predict

    return predict
