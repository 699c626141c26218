"""Which row runs in which slot: prompts prefilled once for their group, finished rows compacted, slots refilled.

Rows are numbered prompt by prompt, `group` neighbours each. They wait in that order; the first N run. A finished row's
slot goes to the next one that waits, else to the row in the last slot, so that rows are always packed at the front and
a step computes nothing for rows that are done.

Shapes: R rows in all, N slots, n of them in use; B prompts, P prompt tokens; of the cache see `cache`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

import torch

from tandem.chat.engine.cache import KeyValues
from tandem.chat.engine.decoder import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tandem.chat.engine.decoder import Decoder

PREFILL_TOKENS = 1024
"""How many tokens are prefilled at a time: enough for large products, few enough for what lies between to be cached."""


@final
class Slots:
    """Rows that run, and rows that wait.

    Args:
        decoder: The model.
        prompts: Their tokens.
        group: Rows a prompt.
        limit: N, the most rows at a time.
        capacity: The most tokens of a row.
        device: The model's.

    Attributes:
        rows_N: The row in each slot; of this and the following the first `running` count.
        positions_N: Where its newest token stands.
        tokens_N: That token, which is not cached yet.
        running: n.
        cache: Keys and values of all tokens before.
    """

    cache: KeyValues

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        *,
        group: int,
        limit: int,
        capacity: int,
        device: torch.device,
    ) -> None:
        self._decoder, self._prompts, self._group = decoder, prompts, group
        self._limit, self._capacity, self._device = limit, capacity, device
        self._waiting = deque(range(len(prompts) * group))
        self._prefilled: dict[int, Tensor] = {}
        self.rows_N, self.positions_N, self.tokens_N = (
            torch.zeros(limit, dtype=torch.long, device=device) for _ in range(3)
        )
        self.running = 0
        self._seen, self._even = 0, True
        self._seat(range(min(limit, len(self._waiting))))

    def step(self) -> Step:
        """Return what to compute next."""
        n = self.running
        return Step(self.tokens_N[:n], self.positions_N[:n], self._seen, self._even)

    def advance(self, tokens_n: Tensor, done_n: Tensor) -> None:
        """Give each row its next token, and the slots of those that are done to others."""
        n = self.running
        self.tokens_N[:n] = tokens_n
        self.positions_N[:n] += 1
        self._seen += 1
        if not bool(done_n.any()):
            return
        free = done_n.nonzero()[:, 0].tolist()
        refilled = free[: len(self._waiting)]
        self._seat(refilled)
        for slot in reversed(free[len(refilled) :]):
            self._drop(slot)
        self._look()

    def _seat(self, slots: Sequence[int]) -> None:
        """Begin the next rows that wait, one in each of these slots."""
        rows = [self._waiting.popleft() for _ in slots]
        self._prefill(sorted({row // self._group for row in rows} - self._prefilled.keys()))
        for slot, row in zip(slots, rows, strict=True):
            prompt = row // self._group
            self.cache.seat(slot, self._prefilled[prompt])
            self.rows_N[slot] = row
            self.tokens_N[slot] = self._prompts[prompt][-1]
            # The prompt's last token runs again, as the first step of its rows: they differ from there on.
            self.positions_N[slot] = len(self._prompts[prompt]) - 1
            if (row + 1) % self._group == 0:
                del self._prefilled[prompt]
        self.running = max([self.running, *(slot + 1 for slot in slots)])
        self._look()

    def _drop(self, slot: int) -> None:
        self.running -= 1
        last = self.running
        if slot == last:
            return
        for what_N in (self.rows_N, self.positions_N, self.tokens_N):
            what_N[slot] = what_N[last]
        self.cache.move(last, slot, int(self.positions_N[slot]))

    def _look(self) -> None:
        """See how long the longest row is, and whether all are as long."""
        positions = self.positions_N[: self.running].tolist()
        self._seen = max(positions, default=-1) + 1
        self._even = self._seen == min(positions, default=-1) + 1

    def _prefill(self, which: Sequence[int]) -> None:
        """Compute keys and values of prompts, several at a time."""
        batch: list[int] = []
        for prompt in which:
            longest = max(len(self._prompts[i]) for i in [*batch, prompt])
            if batch and longest * (len(batch) + 1) > PREFILL_TOKENS:
                self._prefill_batch(batch)
                batch = []
            batch.append(prompt)
        if batch:
            self._prefill_batch(batch)

    def _prefill_batch(self, batch: Sequence[int]) -> None:
        longest = max(len(self._prompts[i]) for i in batch)
        # Padded with a token of its own: whatever stands there, no token before it looks at it.
        padded = [[*self._prompts[i], *[self._prompts[i][-1]] * (longest - len(self._prompts[i]))] for i in batch]
        kv_L2BHPD = self._decoder.prefill(torch.tensor(padded, dtype=torch.long, device=self._device))
        if not hasattr(self, "cache"):
            self.cache = KeyValues(kv_L2BHPD[:, :, 0], slots=self._limit, capacity=self._capacity)
        for place, prompt in enumerate(batch):
            self._prefilled[prompt] = kv_L2BHPD[:, :, place, :, : len(self._prompts[prompt])]
