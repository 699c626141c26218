"""By which rows a stage learns, for its checkpoint: one that goes on with other rows is told to.

The recipe names files alone, and what is in them may have changed since.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, final

import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tandem.chat.data.rows import Row


@final
class Fingerprint:
    """What a checkpoint holds of the rows.

    Args:
        rows: What the recipe's sources hold for the stage now, of each phase and source by itself.
        stage: Who learns by them.
        say: Is told where a checkpoint is of others.
    """

    def __init__(self, rows: Sequence[Sequence[Row]], stage: str, say: Callable[[str], None]) -> None:
        self._rows, self._stage, self._say = rows, stage, say

    @cached_property
    def digest(self) -> str:
        """Of all rows in their order."""
        hashed = xxhash.xxh3_128()
        for part in self._rows:
            hashed.update(f"{len(part)}:".encode())
            for row in part:
                hashed.update(repr(row).encode())
        return hashed.hexdigest()

    def state_dict(self) -> dict[str, str]:
        """What a checkpoint holds."""
        return {"digest": self.digest}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Say so where a checkpoint was made with other rows."""
        if state["digest"] != self.digest:
            self._say(
                f"stage {self._stage} goes on with other rows than its checkpoint was made with: data.sources hold "
                "others for it now, and it need not end with the weights that either would have given alone"
            )
