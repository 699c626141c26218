// How fast this machine reads memory, which bounds a product with few columns, and how fast its clock is.
#pragma once

#include <cstddef>

namespace tandem::sparse {

// The best of the passes over `bytes` that `threads` threads make within about `seconds`, in bytes per second. `bytes`
// should be several times the last-level cache. Throws std::invalid_argument, std::bad_alloc.
double read_bandwidth(int threads, size_t bytes, double seconds);

// Cycles a second of one core, as additions of registers that each wait for the one before: one cycle on every processor
// this is for.
// The best of short runs over about `seconds`, so that who else uses the core does not count.
double clock_hz(double seconds);

}  // namespace tandem::sparse
