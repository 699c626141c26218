// A warp of the GPU's kernel on a processor: the same functions decode a chunk lane by lane, for tests.
#include "gpu_emulated.hpp"

#include <cstring>
#include <vector>

#include "../gpu/fragment.cuh"
#include "../gpu/lanes.cuh"

namespace tandem::sparse {

void emulate_chunk(const uint64_t* upper_masks, const uint64_t* lower_masks, const uint16_t* upper,
                   const uint16_t* lower, uint16_t* dense) {
  using namespace tandem_sparse;
  std::vector<unsigned> entries(entries_words);
  unsigned at[2] = {0, 0};
  for (int tile = 0; tile < chunk_tiles; ++tile) {
    write_entries(entries.data(), tile, upper_masks[tile], at[0], lower_masks[tile], at[1]);
    at[0] += static_cast<unsigned>(count_64(upper_masks[tile]));
    at[1] += static_cast<unsigned>(count_64(lower_masks[tile]));
  }
  const SixteenBits strips[2] = {{upper}, {lower}};
  for (int step = 0; step < steps; ++step) {
    for (int lane = 0; lane < 32; ++lane) {
      const int tile = step_tiles * step + lane % 4;
      for (int strip = 0; strip < 2; ++strip) {
        const unsigned entry = entries[static_cast<size_t>(entry_of(tile, lane / 4) + strip)];
        unsigned four[4];
        spread_row(strips[strip], entry & 0xffffu, entry >> 16, four);
        std::memcpy(dense + (lane / 4 + 8 * strip) * chunk_columns + 8 * tile, four, sizeof four);
      }
    }
  }
}

void emulate_piece(const uint32_t* masks, const uint32_t* turns, const uint16_t* values, uint16_t* dense) {
  using namespace tandem_lanes;
  const SixteenBits from{values};
  for (int lane = 0; lane < lanes; ++lane) {
    unsigned words[4], at[2] = {own_slot(lane, 0), own_slot(lane, 1)};
    std::memcpy(words, masks + 4 * lane, sizeof words);
    for (int step = 0; step < steps; ++step) {
      for (int strip = 0; strip < 2; ++strip) {
        if (turn_step(turns[lane], strip) == step) at[strip] = turn_slot(turns[lane], strip);
        unsigned four[4];
        spread_row(from, at[strip], byte_of(words, step, strip), four);
        const int row = lane / 4 + 8 * strip, tile = step_tiles * step + lane % 4;
        std::memcpy(dense + row * chunk_columns + 8 * tile, four, sizeof four);
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
