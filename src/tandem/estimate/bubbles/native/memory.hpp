// Large anonymous memory, and how large the last-level cache is.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <new>
#include <string>

namespace tandem::bubbles {

constexpr std::size_t LINE_BYTES = 64;

// Pages of this process alone, touched where they are made; huge ones where the kernel gives them, so that a
// translation buffer's misses do not drown what a kernel is about.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : bytes_(bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    madvise(at, bytes, MADV_HUGEPAGE);  // a wish
    data_ = static_cast<uint64_t*>(at);
    for (std::size_t i = 0; i < bytes / sizeof(uint64_t); i += 4096 / sizeof(uint64_t)) data_[i] = 0;
  }
  ~Memory() { munmap(data_, bytes_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint64_t* words() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  uint64_t* data_;
  std::size_t bytes_;
};

// The first processor's largest cache, as the kernel tells it; 32 MiB where it does not.
inline std::size_t last_level_cache_bytes() {
  std::size_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    std::size_t size = 0;
    char unit = 0;
    if (file >> size >> unit) largest = std::max(largest, unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : 0);
  }
  return largest != 0 ? largest : std::size_t{32} << 20;
}

// Enough that a stream through it finds nothing in the cache, within a sixteenth of the machine's memory.
inline std::size_t stream_bytes() {
  const std::size_t memory =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t wanted = std::max(4 * last_level_cache_bytes(), std::size_t{64} << 20);
  return std::min(wanted, memory / 16) & ~std::size_t{(1 << 21) - 1};
}

}  // namespace tandem::bubbles
