// What a byte of a bitmap says, looked up: where each of eight columns finds its nonzero among eight that follow
// one another. 0x80 makes pshufb write zero.
#pragma once

#include <array>
#include <cstdint>

namespace tandem::sparse {

template <int size>
using ByteTable = std::array<std::array<uint8_t, size>, 256>;

// Eight 32-bit lanes in two halves, each half with all nonzeros before it: nonzero of `bytes` bytes in a lane's top.
template <int bytes>
constexpr ByteTable<32> top_of_lanes() {
  ByteTable<32> table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    uint8_t next = 0;
    for (unsigned column = 0; column < 8; ++column) {
      const bool kept = mask >> column & 1;
      for (unsigned byte = 0; byte < 4; ++byte) {
        const bool empty = !kept || byte < 4 - bytes;
        table[mask][4 * column + byte] = empty ? 0x80 : static_cast<uint8_t>(next * bytes + byte - (4 - bytes));
      }
      next += kept;
    }
  }
  return table;
}

// Eight 16-bit lanes.
constexpr ByteTable<16> sixteen_bit_lanes() {
  ByteTable<16> table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    uint8_t next = 0;
    for (unsigned column = 0; column < 8; ++column) {
      const bool kept = mask >> column & 1;
      table[mask][2 * column] = kept ? static_cast<uint8_t>(2 * next) : 0x80;
      table[mask][2 * column + 1] = kept ? static_cast<uint8_t>(2 * next + 1) : 0x80;
      next += kept;
    }
  }
  return table;
}

// The columns that are kept, in order, each times 8; what follows them is zero.
constexpr std::array<std::array<uint16_t, 8>, 256> kept_columns_by_8() {
  std::array<std::array<uint16_t, 8>, 256> table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned next = 0;
    for (unsigned column = 0; column < 8; ++column)
      if (mask >> column & 1) table[mask][next++] = static_cast<uint16_t>(8 * column);
  }
  return table;
}

}  // namespace tandem::sparse
