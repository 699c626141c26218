// How a warp turns bitmaps and nonzeros into the A fragments of mma.m16n8k16: the same functions on a GPU and, in tests, on
// a processor (native/gpu_emulated.cpp), lane by lane.
//
// A warp has two strips (16 rows) and 32 tiles (256 columns) at a time, which is 16 fragments. First each lane counts
// one tile of each strip, all rows at once in one 64-bit word: a multiplication sums the bytes' counts, no row needs a
// popc of its own. What a lane found is written as eight entries (one a row): where the row's nonzeros begin, and its
// byte of the bitmap. Then, fragment by fragment, each lane reads its row's entries of four tiles at once and fetches the
// two neighbours that it has to hold: one popc of six bits for two weights.
#pragma once

#if defined(__CUDACC__)
#define TANDEM_BOTH __host__ __device__ __forceinline__
#else
#include <cstdint>
#include <cstring>
#define TANDEM_BOTH inline
#endif

namespace tandem_sparse {

constexpr int chunk_tiles = 32, chunk_columns = 8 * chunk_tiles, fragments = 16;
constexpr int entry_stride = 36;  // words of a fragment's entries: 8 rows of 4, and 4 that keep lanes off each other's banks
constexpr int entries_words = fragments * entry_stride;

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

// Writes the entries of one tile. `strip` is 0 or 1, `tile` 0 to 31; `base` is where the tile's nonzeros begin in the
// chunk. An entry: 16 bits of where the row begins, then its byte.
TANDEM_BOTH void write_entries(unsigned* entries, int strip, int tile, unsigned long long mask, unsigned base) {
  const unsigned long long below = set_below(mask);
  unsigned* to = entries + tile / 2 * entry_stride + tile % 2 * 2 + strip;
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int row = 0; row < 8; ++row) {
    const unsigned begins = base + static_cast<unsigned>(below >> (8 * row) & 255);
    to[4 * row] = begins | static_cast<unsigned>(mask >> (8 * row) & 255) << 16;
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

// Lane's register for one entry: columns 2 * (lane % 4) and the next of its row.
template <class Values>
TANDEM_BOTH unsigned register_of(const Values& values, unsigned entry, int lane) {
  const int shift = 2 * (lane % 4);
  const unsigned byte = entry >> 16;
  const unsigned at = (entry & 0xffffu) + static_cast<unsigned>(popcount_32(byte & ((1u << shift) - 1)));
  return values.pair(at, byte >> shift & 3u);
}

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
