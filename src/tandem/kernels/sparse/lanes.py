"""The order in which a GPU's lanes read nonzeros: each lane's in its own bank of shared memory.

A warp multiplies a panel of 16 rows (two strips) chunk by chunk, 256 columns each. Of a chunk, lane `4 * r + t` has row
r of both strips, every fourth tile from tile t on: two streams of nonzeros, one for each strip, in eight steps of a
tile. A panel's nonzeros of a chunk, a piece, lie in rows of 64 slots, two for each lane (a bank's word of 16-bit
values), so that lanes that are at different rows never ask the same bank. Streams differ in length: one that is longer
than the piece has rows goes on, from the step on that no longer fits, behind the end of a shorter stream of the same
strip. This is its turn.

Arranged on the device where the weight is, some panels at a time. Shapes: P panels, C chunks, L 32 lanes, U 2 strips of
a panel, N 8 steps, R rows of slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from tandem.kernels.sparse.format import TILE, kept_tiles

if TYPE_CHECKING:
    from tandem.kernels.sparse.format import SparseWeight

LANES, STRIPS = 32, 2
PANEL_ROWS = STRIPS * TILE
SLOTS = STRIPS * LANES
STEPS, STEP_TILES = 8, 4
CHUNK_TILES = STEPS * STEP_TILES
CHUNK_COLUMNS = TILE * CHUNK_TILES
MOST_ROWS = TILE * STEPS
"""Rows of slots of a piece without a zero."""
TAIL_ROWS = 8
"""A GPU copies up to 512 bytes beyond the last row."""
_WEIGHTS_AT_A_TIME = 1 << 23


class Lanes(NamedTuple):
    """A weight's bitmap and nonzeros as a GPU's lanes read them.

    Attributes:
        masks_PCL4: A lane's bits of a chunk, a 32-bit word for two steps: a byte of the upper strip, one of the lower,
            and the same of the second step.
        turns_PCL: A lane's turns, the upper strip's in the lower 16 bits: a row of slots (7 bits), the lane whose slots
            they are (5 bits), and the step (4 bits) from which on the stream lies there.
        values_RS: The rows of slots of all pieces, panel by panel; zeros where nothing lies, and `TAIL_ROWS` behind.
        begins: Where each piece's rows begin and the last one's end, P * C + 1 int32.
        longest: Rows of the longest piece.
    """

    masks_PCL4: torch.Tensor
    turns_PCL: torch.Tensor
    values_RS: torch.Tensor
    begins: torch.Tensor
    longest: int

    @property
    def size_bytes(self) -> int:
        """Bytes that it holds in memory."""
        return sum(part.numel() * part.element_size() for part in self[:4])


def arrange(weight: SparseWeight) -> Lanes:
    """Return a weight, which has rows and columns, in the order of lanes."""
    strips, tiles = weight.masks_ST.shape
    step = STRIPS * max(1, _WEIGHTS_AT_A_TIME // (STRIPS * TILE * TILE * tiles))
    found = [_arranged(weight, first, min(first + step, strips)) for first in range(0, strips, step)]
    lengths = torch.cat([some.begins for some in found])
    return Lanes(
        torch.cat([some.masks_PCL4 for some in found]),
        torch.cat([some.turns_PCL for some in found]),
        torch.cat([*(some.values_RS for some in found), weight.values_P.new_zeros(TAIL_ROWS, SLOTS)]),
        torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int(),
        max(some.longest for some in found),
    )


def _arranged(weight: SparseWeight, first: int, last: int) -> Lanes:
    """Arrange the panels of some strips; `begins` tells the rows of each piece, and there is no tail."""
    device, masks_ST = weight.device, weight.masks_ST[first:last]
    keep_PCULN8 = _streams(kept_tiles(masks_ST))
    ends_PCULN = keep_PCULN8.sum(-1).cumsum(-1)
    rows_PC = _rows_for(ends_PCULN)
    steps_PCUL, own_PCUL = _own_steps(ends_PCULN, rows_PC)
    tails_PCUL = ends_PCULN[..., -1] - own_PCUL
    # The longest tail goes behind the shortest stream, and so on: if any way fits, this one does.
    by_room, by_tail = own_PCUL.argsort(dim=-1, stable=True), tails_PCUL.argsort(dim=-1, descending=True, stable=True)
    turns, own_lane = tails_PCUL > 0, torch.arange(LANES, device=device)
    lane_PCUL = torch.where(turns, torch.empty_like(by_room).scatter_(-1, by_tail, by_room), own_lane)
    row_PCUL = torch.where(turns, own_PCUL.gather(-1, lane_PCUL), 0)
    turn_PCUL = row_PCUL | lane_PCUL << 7 | torch.where(turns, steps_PCUL, 0) << 12

    # Where each weight's slot is, whether it is kept or not.
    rank = keep_PCULN8.flatten(-2).cumsum(-1) - 1
    behind = rank >= own_PCUL[..., None]
    row = torch.where(behind, rank - own_PCUL[..., None] + row_PCUL[..., None], rank)
    lane = torch.where(behind, lane_PCUL[..., None], own_lane[:, None])
    before_PC = (rows_PC.flatten().cumsum(0) - rows_PC.flatten()).view_as(rows_PC)
    strip = torch.arange(STRIPS, device=device)[:, None, None]
    slot = (row + before_PC[..., None, None, None]) * SLOTS + STRIPS * lane + strip
    slot_ST88 = _tiles(slot.view_as(keep_PCULN8), masks_ST.shape)
    begin, end = weight.starts_S[[first, last]].tolist()
    values_RS = weight.values_P.new_zeros(int(rows_PC.sum()), SLOTS)
    values_RS.view(-1)[slot_ST88[kept_tiles(masks_ST)]] = weight.values_P[begin:end]
    return Lanes(
        _words(keep_PCULN8),
        (turn_PCUL[:, :, 0] | turn_PCUL[:, :, 1] << 16).int(),
        values_RS,
        rows_PC.flatten(),
        int(rows_PC.max()),
    )


def _streams(tiles_ST88: torch.Tensor) -> torch.Tensor:
    """Return tiles, padded to whole panels and chunks, as lanes have them: `[P, C, U, L, N, 8]`."""
    strips, tiles = tiles_ST88.shape[:2]
    padded = torch.nn.functional.pad(tiles_ST88, (0, 0, 0, 0, 0, -tiles % CHUNK_TILES, 0, -strips % STRIPS))
    cut = padded.view(-1, STRIPS, padded.shape[1] // CHUNK_TILES, STEPS, STEP_TILES, TILE, TILE)
    return cut.permute(0, 2, 1, 5, 4, 3, 6).flatten(3, 4)


def _tiles(streams_PCULN8: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return streams as tiles again, without the padding."""
    panels, chunks = streams_PCULN8.shape[:2]
    cut = streams_PCULN8.view(panels, chunks, STRIPS, TILE, STEP_TILES, STEPS, TILE).permute(0, 2, 1, 5, 4, 3, 6)
    return cut.flatten(2, 4).flatten(0, 1)[: shape[0], : shape[1]]


def _own_steps(ends_PCULN: torch.Tensor, rows_PC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many steps of each stream fit into its own slots, and how many nonzeros they have."""
    fits = ends_PCULN <= rows_PC[..., None, None, None]
    return fits.sum(-1), (ends_PCULN * fits).amax(-1)


def _rows_for(ends_PCULN: torch.Tensor) -> torch.Tensor:
    """Return the fewest rows of slots in which a piece's streams, and behind them tails, have room."""
    lengths_PCUL = ends_PCULN[..., -1]
    rows_PC = -(-lengths_PCUL.sum(-1).amax(-1) // LANES)
    while True:
        own_PCUL = _own_steps(ends_PCULN, rows_PC)[1]
        tails = (lengths_PCUL - own_PCUL).sort(-1, descending=True)[0]
        room = (rows_PC[..., None, None] - own_PCUL).sort(-1, descending=True)[0]
        is_short = (tails > room).flatten(2).any(-1)
        if not bool(is_short.any()):
            return rows_PC
        rows_PC = rows_PC + is_short


def _words(keep_PCULN8: torch.Tensor) -> torch.Tensor:
    """Return every lane's bits as words of two steps, `[P, C, L, 4]` int32."""
    bits = torch.arange(TILE, dtype=torch.uint8, device=keep_PCULN8.device)
    bytes_PCULN = (keep_PCULN8.to(torch.uint8) << bits).sum(-1, dtype=torch.uint8)
    return bytes_PCULN.permute(0, 1, 3, 4, 2).flatten(-2).contiguous().view(torch.int32)
