// Many reads at once through io_uring, by the kernel's own interface: no library is needed.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace tandem::data {

// Bytes to read. A read that gave fewer is gone on with until there are `enough`: a direct one may reach beyond the end.
struct Request {
  int file;
  uint8_t* to;
  uint64_t offset, size, enough;
};

class Ring {
 public:
  // None where the kernel has no io_uring, or does not let this process have it.
  static std::unique_ptr<Ring> make();
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Reads all requests, many at a time, and calls done(request, bytes) for each as it ends: fewer bytes than are
  // enough at the end of a file, or -errno. `done` must not throw. Returns 0, or the errno of io_uring itself.
  int read(const std::vector<Request>& requests, const std::function<void(size_t, int64_t)>& done);

  pid_t owner() const { return owner_; }  // a ring is of no use after a fork

 private:
  Ring() = default;

  pid_t owner_ = 0;
  int file_ = -1;
  uint8_t* queues_ = nullptr;
  size_t queues_bytes_ = 0;
  void* entries_ = nullptr;
  size_t entries_bytes_ = 0;
  unsigned *submit_tail_ = nullptr, *complete_head_ = nullptr, *complete_tail_ = nullptr;
  unsigned submit_mask_ = 0, complete_mask_ = 0;
  unsigned* submit_array_ = nullptr;
  uint8_t* completions_ = nullptr;
};

}  // namespace tandem::data
