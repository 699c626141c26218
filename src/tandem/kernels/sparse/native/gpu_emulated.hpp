#pragma once

#include <cstdint>

namespace tandem::sparse {

// Decodes a piece as a warp does, in the order of lanes, into [16][256] values of 16 bits.
void emulate_piece(const uint32_t* masks, const uint32_t* turns, const uint16_t* values, uint16_t* dense);

// Decodes a strip of some tiles as `decode` does, into [8][8 * tiles].
void emulate_rows(const uint64_t* masks, const uint16_t* values, int tiles, uint16_t* dense);

}  // namespace tandem::sparse
