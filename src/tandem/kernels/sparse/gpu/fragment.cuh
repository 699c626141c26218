// How a lane turns its bits and nonzeros (lanes.py) into registers of the A fragments of mma.m16n8k16: the same functions on
// a GPU and, in tests, on a processor (native/gpu_emulated.cpp), lane by lane.
//
// A step is four tiles of two strips. A lane spreads row lane / 4 of tile lane % 4 of each strip, two rows of eight weights:
// they are its registers of two fragments. In which order columns are added does not matter, so that a lane may have eight
// that lie side by side as long as x is taken likewise.
#pragma once

#if defined(__CUDACC__)
#define TANDEM_BOTH __host__ __device__ __forceinline__
#else
#include <cstdint>
#include <cstring>
#define TANDEM_BOTH inline
#endif

namespace tandem_sparse {

constexpr int lanes = 32, step_tiles = 4, steps = 8, chunk_columns = 8 * step_tiles * steps;
constexpr int slots = 2 * lanes;  // of a row

TANDEM_BOTH int popcount_32(unsigned bits) {
#if defined(__CUDA_ARCH__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

TANDEM_BOTH int count_64(unsigned long long mask) {
  return popcount_32(static_cast<unsigned>(mask)) + popcount_32(static_cast<unsigned>(mask >> 32));
}

// Of a lane's words, each of two steps, the byte that tells of a step's row of a strip.
template <int words>
TANDEM_BOTH unsigned byte_of(const unsigned (&masks)[words], int step, int strip) {
  return masks[step / 2] >> (16 * (step % 2) + 8 * strip) & 255u;
}

// The slot where a lane's stream begins in a piece.
TANDEM_BOTH unsigned own_slot(int lane, int strip) { return static_cast<unsigned>(2 * lane + strip); }

// From which step of a chunk on a stream lies elsewhere, and where.
TANDEM_BOTH int turn_step(unsigned turns, int strip) { return static_cast<int>(turns >> (16 * strip + 12) & 15u); }

TANDEM_BOTH unsigned turn_slot(unsigned turns, int strip) {
  const unsigned turn = turns >> (16 * strip);
  return slots * (turn & 127u) + own_slot(static_cast<int>(turn >> 7 & 31u), strip);
}

// Bf16 or fp16, two of which are a register of the fragment; one nonzero lies `stride` values behind another.
template <int stride>
struct SixteenBits {
  const unsigned short* values;
  TANDEM_BOTH unsigned pair(unsigned& at, unsigned two) const {
    unsigned low = 0, high = 0;
    if (two & 1) low = values[at], at += stride;
    if (two & 2) high = values[at], at += stride;
    return low | high << 16;
  }
};

// A row of a tile as four registers of two columns each, zeros included; `at` is where its nonzeros begin, and then where
// the next ones do.
template <class Values>
TANDEM_BOTH void spread_row(const Values& values, unsigned& at, unsigned byte, unsigned (&four)[4]) {
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < 4; ++i) four[i] = values.pair(at, byte >> (2 * i) & 3u);
}

}  // namespace tandem_sparse
