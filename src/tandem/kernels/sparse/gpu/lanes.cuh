// How a lane turns its bits and nonzeros (../lanes.py) into registers of the A fragments of mma.m16n8k16: the same functions on
// a GPU and, in tests, on a processor (native/gpu_emulated.cpp), lane by lane.
//
// A step is four tiles of two strips. A lane spreads row lane / 4 of tile lane % 4 of each strip, two rows of eight weights:
// they are its registers of two fragments. In which order columns are added does not matter, so that a lane may have eight
// that lie side by side as long as x is taken likewise.
#pragma once

#if defined(__CUDACC__)
#define TANDEM_LANES __host__ __device__ __forceinline__
#else
#define TANDEM_LANES inline
#endif

namespace tandem_lanes {

constexpr int lanes = 32, step_tiles = 4, steps = 8, chunk_columns = 8 * step_tiles * steps;
constexpr int slots = 2 * lanes;  // of a row

// Of a lane's words, each of two steps, the byte that tells of a step's row of a strip.
template <int words>
TANDEM_LANES unsigned byte_of(const unsigned (&masks)[words], int step, int strip) {
  return masks[step / 2] >> (16 * (step % 2) + 8 * strip) & 255u;
}

// The slot where a lane's stream begins in a piece.
TANDEM_LANES unsigned own_slot(int lane, int strip) { return static_cast<unsigned>(2 * lane + strip); }

// From which step of a chunk on a stream lies elsewhere, and where.
TANDEM_LANES int turn_step(unsigned turns, int strip) { return static_cast<int>(turns >> (16 * strip + 12) & 15u); }

TANDEM_LANES unsigned turn_slot(unsigned turns, int strip) {
  const unsigned turn = turns >> (16 * strip);
  return slots * (turn & 127u) + own_slot(static_cast<int>(turn >> 7 & 31u), strip);
}

// A row of a tile as four registers of two columns each, zeros included; `at` is where its nonzeros begin, and then where
// the next ones do.
template <class Values>
TANDEM_LANES void spread_row(const Values& values, unsigned& at, unsigned byte, unsigned (&four)[4]) {
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < 4; ++i) four[i] = values.pair(at, byte >> (2 * i) & 3u);
}

// Bf16 or fp16 in memory, by their slots.
struct SixteenBits {
  const unsigned short* values;
  TANDEM_LANES unsigned pair(unsigned& at, unsigned two) const {
    unsigned low = 0, high = 0;
    if (two & 1) low = values[at], at += slots;
    if (two & 2) high = values[at], at += slots;
    return low | high << 16;
  }
};

}  // namespace tandem_lanes
