// Threads that wait for work: a product takes well under a millisecond, in which starting a thread would be felt. They are
// torch's own, those of the OpenMP library that it has loaded: after each of torch's operations they spin for milliseconds on
// the cores that others would need. Where there is none, and after a fork, they are ours.
#pragma once

#include <cstdint>
#include <functional>

namespace tandem::sparse {

// Calls work(piece) for every piece in [0, pieces), on up to `threads` threads including the caller's, and returns when
// all are done. Pieces are handed out one by one. The first exception of a piece is thrown again here. May be called from
// several threads.
void share_out(int threads, int64_t pieces, const std::function<void(int64_t)>& work);

}  // namespace tandem::sparse
