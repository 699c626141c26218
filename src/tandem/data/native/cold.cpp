#include "cold.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

#include "buffers.hpp"
#include "ring.hpp"
#include "xxh3.hpp"

namespace tandem::data {
namespace {

// Rings that no batch uses just now.
struct Rings {
  std::mutex lock;
  std::vector<std::unique_ptr<Ring>> idle;
};

Rings& rings() {
  static auto* const all = new Rings;
  return *all;
}

std::unique_ptr<Ring> take_ring() {
  {
    const std::lock_guard<std::mutex> hold(rings().lock);
    auto& idle = rings().idle;
    while (!idle.empty()) {
      std::unique_ptr<Ring> ring = std::move(idle.back());
      idle.pop_back();
      if (ring->owner() == getpid()) return ring;
      (void)ring.release();  // the parent's: to close it here would be to touch what the parent still uses
    }
  }
  return Ring::make();
}

void give_ring(std::unique_ptr<Ring> ring) {
  const std::lock_guard<std::mutex> hold(rings().lock);
  rings().idle.push_back(std::move(ring));
}

// Notes the first fault in the order of the batch.
void note(Outcome& first, const Outcome& found) {
  if (first.fault == Fault::none || found.position < first.position) first = found;
}

}  // namespace

bool has_io_uring() {
  std::unique_ptr<Ring> ring = take_ring();
  if (!ring) return false;
  give_ring(std::move(ring));
  return true;
}

size_t direct_alignment(int direct_file) {
  Buffer* const buffer = take_buffer(4096);
  size_t found = 0;
  for (size_t alignment : {size_t{512}, size_t{4096}}) {
    if (::pread(direct_file, buffer->data, alignment, static_cast<off_t>(alignment)) >= 0) {
      found = alignment;
      break;
    }
  }
  give_buffer(buffer);
  return found;
}

Outcome read_cold(const std::vector<Wanted>& wanted, size_t alignment) {
  std::unique_ptr<Ring> ring = take_ring();
  if (!ring) return {Fault::unable, 0, 0};
  std::vector<Request> requests;
  std::vector<size_t> before;  // bytes that are read ahead of a sample, for the alignment
  requests.reserve(wanted.size());
  before.reserve(wanted.size());
  size_t room = 0;
  for (const Wanted& one : wanted) {
    const uint64_t begin = alignment ? one.offset / alignment * alignment : one.offset;
    const uint64_t end = alignment ? (one.offset + one.size + alignment - 1) / alignment * alignment : one.offset + one.size;
    before.push_back(one.offset - begin);
    requests.push_back({one.file, one.to, begin, end - begin, before.back() + one.size});
    room += requests.back().size;
  }
  Buffer* const sectors = alignment ? take_buffer(room) : nullptr;
  if (sectors) {
    uint8_t* at = sectors->data;
    for (Request& request : requests) {
      request.to = at;
      at += request.size;
    }
  }
  Outcome first;
  const int error = ring->read(requests, [&](size_t which, int64_t got) {
    const Wanted& one = wanted[which];
    if (got < 0) return note(first, {Fault::io, which, static_cast<int>(-got)});
    if (static_cast<uint64_t>(got) < before[which] + one.size) return note(first, {Fault::vanished, which, 0});
    const uint8_t* const bytes = requests[which].to + before[which];
    const uint64_t hash = sectors ? copy_xxh3(one.to, bytes, one.size) : xxh3(bytes, one.size);
    if (hash != one.checksum) note(first, {Fault::checksum, which, 0});
  });
  if (sectors && error == 0) give_buffer(sectors);  // else the kernel may still write to it
  if (error) return {Fault::io, 0, error};
  give_ring(std::move(ring));
  return first;
}

}  // namespace tandem::data
