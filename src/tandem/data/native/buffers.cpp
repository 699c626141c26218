#include "buffers.hpp"

#include <sys/mman.h>

#include <mutex>
#include <new>
#include <vector>

namespace tandem::data {
namespace {

constexpr size_t least_bytes = size_t{64} << 10, most_idle_bytes = size_t{256} << 20, huge_bytes = size_t{4} << 20;

std::mutex& lock() {
  static auto* const one = new std::mutex;  // outlives every array that Python frees at its end
  return *one;
}

std::vector<Buffer*>& idle() {
  static auto* const all = new std::vector<Buffer*>;
  return *all;
}

size_t idle_bytes = 0;

// Rounded up to an eighth of the power of two below, so that batches of about one size share buffers.
size_t rounded(size_t size) {
  if (size <= least_bytes) return least_bytes;
  size_t step = least_bytes / 8;
  while (step * 16 <= size) step *= 2;
  return (size + step - 1) / step * step;
}

void unmap(Buffer* buffer) {
  munmap(buffer->data, buffer->room);
  delete buffer;
}

}  // namespace

Buffer* take_buffer(size_t size) {
  const size_t room = rounded(size);
  {
    const std::lock_guard<std::mutex> hold(lock());
    auto& all = idle();
    size_t best = all.size();
    for (size_t i = all.size(); i-- > 0;) {  // the one used last is warm in the caches
      if (all[i]->room >= room && all[i]->room <= 2 * room && (best == all.size() || all[i]->room < all[best]->room)) best = i;
    }
    if (best < all.size()) {
      Buffer* const found = all[best];
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(best));
      idle_bytes -= found->room;
      return found;
    }
  }
  void* const data = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  if (room >= huge_bytes) madvise(data, room, MADV_HUGEPAGE);
  return new Buffer{static_cast<uint8_t*>(data), room};
}

void give_buffer(Buffer* buffer) noexcept {
  std::vector<Buffer*> dropped;
  {
    const std::lock_guard<std::mutex> hold(lock());
    auto& all = idle();
    all.push_back(buffer);
    idle_bytes += buffer->room;
    while (idle_bytes > most_idle_bytes) {
      idle_bytes -= all.front()->room;
      dropped.push_back(all.front());
      all.erase(all.begin());
    }
  }
  for (Buffer* one : dropped) unmap(one);
}

size_t idle_buffer_bytes() {
  const std::lock_guard<std::mutex> hold(lock());
  return idle_bytes;
}

}  // namespace tandem::data
