// A warp of the GPU's kernel on a processor: the same functions decode a piece lane by lane, for tests.
#include "gpu_emulated.hpp"

#include <cstring>

#include "../gpu/fragment.cuh"

namespace tandem::sparse {

void emulate_piece(const uint32_t* masks, const uint32_t* turns, const uint16_t* values, uint16_t* dense) {
  using namespace tandem_sparse;
  const SixteenBits<slots> from{values};
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
      unsigned four[4];
      spread_row(SixteenBits<1>{values}, at, static_cast<unsigned>(masks[tile] >> (8 * row) & 255), four);
      std::memcpy(dense + (row * tiles + tile) * 8, four, sizeof four);
    }
  }
}

}  // namespace tandem::sparse
