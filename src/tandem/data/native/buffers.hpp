// Memory for batches, used again: fresh pages for every batch would cost as much as reading it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::data {

// A buffer of the pool; `room` may be more than was asked for.
struct Buffer {
  uint8_t* data;
  size_t room;
};

// Takes a page-aligned buffer of at least `size` bytes. Throws std::bad_alloc.
Buffer* take_buffer(size_t size);

// Gives it back; what the pool does not keep is unmapped.
void give_buffer(Buffer* buffer) noexcept;

// Bytes that lie unused in the pool.
size_t idle_buffer_bytes();

}  // namespace tandem::data
