// A warp of the GPU's kernel on a processor: the same functions decode a chunk lane by lane, for tests.
#include "gpu_emulated.hpp"

#include <cstring>
#include <vector>

#include "../gpu/fragment.cuh"

namespace tandem::sparse {

void emulate_chunk(const uint64_t* upper_masks, const uint64_t* lower_masks, const uint16_t* upper,
                   const uint16_t* lower, uint16_t* dense) {
  using namespace tandem_sparse;
  std::vector<unsigned> entries(entries_words);
  unsigned at[2] = {0, 0};
  for (int tile = 0; tile < chunk_tiles; ++tile) {
    const uint64_t masks[2] = {upper_masks[tile], lower_masks[tile]};
    for (int strip = 0; strip < 2; ++strip) {
      write_entries(entries.data(), strip, tile, masks[strip], at[strip]);
      at[strip] += static_cast<unsigned>(count_64(masks[strip]));
    }
  }
  const SixteenBits strips[2] = {{upper}, {lower}};
  for (int fragment = 0; fragment < fragments; ++fragment) {
    for (int lane = 0; lane < 32; ++lane) {
      // Registers of an A fragment, PTX ISA, "Matrix fragments for mma.m16n8k16": row lane / 4 (+ 8 for odd ones),
      // columns 2 * (lane % 4) and the next (+ 8 for the last two).
      for (int i = 0; i < 4; ++i) {
        const unsigned entry = entries[static_cast<size_t>(fragment * entry_stride + 4 * (lane / 4) + i)];
        const unsigned pair = register_of(strips[i % 2], entry, lane);
        uint16_t* to = dense + (lane / 4 + 8 * (i % 2)) * chunk_columns + 16 * fragment + 8 * (i / 2) + 2 * (lane % 4);
        to[0] = static_cast<uint16_t>(pair);
        to[1] = static_cast<uint16_t>(pair >> 16);
      }
    }
  }
}

void emulate_rows(const uint64_t* masks, const uint16_t* values, int tiles, uint16_t* dense) {
  using namespace tandem_sparse;
  unsigned at = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    for (int row = 0; row < 8; ++row) {
      const auto byte = static_cast<unsigned>(masks[tile] >> (8 * row) & 255);
      unsigned four[4];
      spread_row(SixteenBits{values}, at, byte, four);
      at += static_cast<unsigned>(popcount_32(byte));
      std::memcpy(dense + (row * tiles + tile) * 8, four, sizeof four);
    }
  }
}

}  // namespace tandem::sparse
