// Threads that wait for work: a product takes well under a millisecond, less than starting a thread would be felt.
#pragma once

#include <cstdint>
#include <functional>

namespace tandem::sparse {

// Calls work(piece) for every piece in [0, pieces), on up to `threads` threads including the caller's, and returns when
// all are done. Pieces are handed out one by one. Exceptions of a piece are thrown again here. May be called
// from several threads (one after the other is served) and after a fork (a child has a team of its own).
void share_out(int threads, int64_t pieces, const std::function<void(int64_t)>& work);

}  // namespace tandem::sparse
