// How fast this machine streams through memory.
#pragma once

#include <cstddef>

namespace tandem {

// Runs STREAM's triad, a[i] = b[i] + s * c[i], on `threads` threads at once for about `seconds`; the three arrays
// together hold `bytes` and should be several times the last-level cache. Returns bytes per second, counting two
// reads and one write an element. Throws std::invalid_argument, std::bad_alloc, std::system_error.
double copy_bandwidth(int threads, std::size_t bytes, double seconds);

}  // namespace tandem
