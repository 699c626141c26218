// Reading mapped files that may shrink: what would kill the process with SIGBUS becomes an answer.
//
// A file that is truncated while it is mapped, or a disk that fails under it, raises SIGBUS at the load. The handler here
// acts only while the thread is inside guarded(); every other fault goes to whoever handled it before.
#pragma once

#include <csetjmp>

namespace tandem::data {

// Installs the handler, unless it is in place; called before every batch, since others may have replaced it.
void watch_faults();

namespace detail {
extern thread_local sigjmp_buf* landing __attribute__((tls_model("initial-exec")));
}

// Runs `work` and returns true, or false where a load in it failed. A fault leaves `work` without destroying its
// locals: it must hold none that need it, and must not lock, allocate or throw.
template <class Work>
bool guarded(Work&& work) {
  sigjmp_buf here;
  if (sigsetjmp(here, 0) != 0) {
    detail::landing = nullptr;
    return false;
  }
  detail::landing = &here;
  __asm__ volatile("" ::: "memory");
  work();
  __asm__ volatile("" ::: "memory");
  detail::landing = nullptr;
  return true;
}

}  // namespace tandem::data
