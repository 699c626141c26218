// How fast this machine reads memory, which bounds a product with few columns, and how fast its clock is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace tandem::sparse {

// An address and how many bytes are readable there.
using Part = std::pair<uintptr_t, size_t>;

// The best of the passes over `parts` that `threads` threads make within about `seconds`, in bytes per second. Together they
// should be several times the last-level cache. Throws std::invalid_argument.
double read_bandwidth(int threads, const std::vector<Part>& parts, double seconds);

// Cycles a second of one core, as additions of registers that each wait for the one before: one cycle on every processor
// this is for.
// The best of short runs over about `seconds`, so that who else uses the core does not count.
double clock_hz(double seconds);

}  // namespace tandem::sparse
