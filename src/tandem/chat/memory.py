"""The most memory that this process has held since it was last asked to begin counting anew (Linux); its shortage."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tandem.chat.errors import ShortOfMemoryError
from tandem.core.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_ASKING = "free memory, take a smaller model, or another --device"
"""What to do where a model that is only asked does not fit."""

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin() -> None:
    """Count anew from here; where the kernel does not let us, the peak stays that of the whole process."""
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")


def peak_bytes() -> int:
    """Return the peak of what was resident since `begin`."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


@contextlib.contextmanager
def shortage_in_words(
    todo: str = "set rl.micro_rows, lower rl.prompts, sft.batch_tokens or reward.pairs, or take a smaller model",
) -> Iterator[None]:
    """Tell in words that something did not fit while the block ran, and what to do.

    Raises:
        ShortOfMemoryError: Memory of the processor or of a GPU was refused. Whom the kernel kills is not told.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = in_words(error).splitlines()[0]
        refused = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in told
        if not refused:
            raise
        raise ShortOfMemoryError(
            given=f"something that does not fit into memory: {told}",
            allowed="a model and batches that do",
            todo=todo,
        ) from error
