// A few threads that wait for work, shared by all readers of the process.
#pragma once

#include <cstddef>
#include <functional>

namespace tandem::data {

// Calls work(0) ... work(pieces - 1), each once, on up to `threads` threads, the caller's among them; returns when all
// are done. `work` must not throw. After a fork the child starts threads of its own.
void share_out(size_t pieces, size_t threads, const std::function<void(size_t)>& work);

}  // namespace tandem::data
