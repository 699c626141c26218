// Reads of what is not in the page cache: all of a batch under way at once.
#pragma once

#include "reader.hpp"

namespace tandem::data {

// Whether the kernel gives this process an io_uring.
bool has_io_uring();

// The widest alignment, 512 or 4096, that direct reads of a file need; 0 where it cannot be read directly.
size_t direct_alignment(int direct_file);

// A sample to be read from an open file into its place in the batch.
struct Wanted {
  int file;
  uint64_t offset, size, checksum;
  uint8_t* to;
};

// Reads and verifies through io_uring. With `alignment`, files are open for direct reads, and whole sectors go through
// a buffer. Outcome::position is the place in `wanted`. Fault::unable: there is no io_uring.
Outcome read_cold(const std::vector<Wanted>& wanted, size_t alignment);

}  // namespace tandem::data
