// How fast this machine reads memory, which bounds a product with few columns.
#pragma once

#include <cstddef>

namespace tandem::sparse {

// The best of the passes over `bytes` that `threads` threads make within about `seconds`, in bytes per second. `bytes`
// should be several times the last-level cache. Throws std::invalid_argument, std::bad_alloc.
double read_bandwidth(int threads, size_t bytes, double seconds);

}  // namespace tandem::sparse
