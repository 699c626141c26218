// How a warp turns bitmaps and nonzeros into the A fragments of mma.m16n8k16: the same functions on a GPU and, in tests, on
// a processor (native/gpu_emulated.cpp), lane by lane.
//
// A warp has two strips (16 rows) and 32 tiles (256 columns) at a time, in 8 steps of 4 tiles. First each lane counts
// its tile of each strip, all rows at once in one 64-bit word: a multiplication sums the bytes' counts, no row needs a
// popc of its own. What a lane found is written as eight entries (one a row) for each strip: where the row's nonzeros
// begin, and its byte of the bitmap. Then, step by step, each lane reads the two entries of row lane / 4 of tile lane % 4
// and spreads the two rows of eight weights that they tell of: they are its registers of two fragments. In which order
// columns are added does not matter, so that a lane may have eight that lie side by side as long as x is taken likewise.
#pragma once

#if defined(__CUDACC__)
#define TANDEM_BOTH __host__ __device__ __forceinline__
#else
#include <cstdint>
#include <cstring>
#define TANDEM_BOTH inline
#endif

namespace tandem_sparse {

constexpr int chunk_tiles = 32, chunk_columns = 8 * chunk_tiles, step_tiles = 4, steps = chunk_tiles / step_tiles;
constexpr int entry_stride = 72;  // words of a step's entries: 8 rows of 4 tiles of 2 strips, and 8 that part the banks
constexpr int entries_words = steps * entry_stride;

TANDEM_BOTH int popcount_32(unsigned bits) {
#if defined(__CUDA_ARCH__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// Byte r: how many bits are set in the bytes below r.
TANDEM_BOTH unsigned long long set_below(unsigned long long mask) {
  unsigned long long counts = mask - ((mask >> 1) & 0x5555555555555555ull);
  counts = (counts & 0x3333333333333333ull) + ((counts >> 2) & 0x3333333333333333ull);
  counts = (counts + (counts >> 4)) & 0x0f0f0f0f0f0f0f0full;
  return (counts * 0x0101010101010101ull) << 8;
}

TANDEM_BOTH int count_64(unsigned long long mask) {
  return popcount_32(static_cast<unsigned>(mask)) + popcount_32(static_cast<unsigned>(mask >> 32));
}

// Where the two entries of a row of a tile stand.
TANDEM_BOTH int entry_of(int tile, int row) {
  return tile / step_tiles * entry_stride + 2 * (step_tiles * row + tile % step_tiles);
}

// Writes the entries of a tile of both strips; `upper_at` and `lower_at` are where their nonzeros begin in the chunk. An
// entry: 16 bits of where the row begins, then its byte.
TANDEM_BOTH void write_entries(unsigned* entries, int tile, unsigned long long upper, unsigned upper_at,
                               unsigned long long lower, unsigned lower_at) {
  const unsigned long long above[2] = {set_below(upper), set_below(lower)};
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int row = 0; row < 8; ++row) {
    const unsigned first = (upper_at + static_cast<unsigned>(above[0] >> (8 * row) & 255)) |
                           static_cast<unsigned>(upper >> (8 * row) & 255) << 16;
    const unsigned second = (lower_at + static_cast<unsigned>(above[1] >> (8 * row) & 255)) |
                            static_cast<unsigned>(lower >> (8 * row) & 255) << 16;
#if defined(__CUDACC__)
    *reinterpret_cast<uint2*>(entries + entry_of(tile, row)) = make_uint2(first, second);
#else
    entries[entry_of(tile, row)] = first;
    entries[entry_of(tile, row) + 1] = second;
#endif
  }
}

// Two bf16 or fp16 side by side as a register of the fragment holds them; int8 become the type that x has.
struct SixteenBits {
  const unsigned short* values;
  TANDEM_BOTH unsigned pair(unsigned at, unsigned two) const {
    const unsigned low = two & 1 ? values[at] : 0u;
    const unsigned high = two & 2 ? values[at + (two & 1)] : 0u;
    return low | high << 16;
  }
};

// A row of a tile as four registers of two columns each, zeros included; `at` is where its nonzeros begin.
template <class Values>
TANDEM_BOTH void spread_row(const Values& values, unsigned at, unsigned byte, unsigned (&four)[4]) {
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < 4; ++i) {
    const unsigned two = byte >> (2 * i) & 3u;
    four[i] = values.pair(at, two);
    at += (two & 1u) + (two >> 1);
  }
}

}  // namespace tandem_sparse
