// Last-level cache. The bubble reads lines at random all over a footprint that grows with the dial, many loads under way
// at once, so that whatever lies in the cache beside it is pushed out. The reporter chases through a footprint of half
// the cache, each address depending on what was read before, so that it feels every line that was taken from it.
#include "kernel.hpp"
#include "memory.hpp"
#include "pace.hpp"

namespace tandem::bubbles {
namespace {

constexpr int64_t PERIOD_NS = 100 * MICROSECOND;
constexpr double LARGEST_FOOTPRINT = 1.5;   // of the cache: evicts what another owner touches now and then
constexpr double REPORTER_FOOTPRINT = 0.5;  // of the cache
constexpr int ACCESSES = 256;               // a few microseconds

// A full-period generator (Knuth's multiplier for MMIX); its high bits choose the line.
inline uint64_t next(uint64_t x) { return x * 6364136223846793005ULL + 1442695040888963407ULL; }

inline std::size_t line_of(uint64_t x, uint64_t lines) {
  return static_cast<std::size_t>(((x >> 32) * lines) >> 32) * (LINE_BYTES / sizeof(uint64_t));
}

class Gather final : public Kernel {
 public:
  explicit Gather(std::size_t bytes) : memory_(bytes) {}

  uint64_t run(double level) override {
    const auto all = static_cast<double>(memory_.bytes() / LINE_BYTES);
    const auto lines = std::max(uint64_t{64}, static_cast<uint64_t>(level * all));
    return duty(1.0, PERIOD_NS, [&] { return gather(lines); });
  }

 private:
  uint64_t gather(uint64_t lines) {
    uint64_t sum = 0;
    for (int i = 0; i < ACCESSES; ++i) {
      state_ = next(state_);
      sum += memory_.words()[line_of(state_, lines)];
    }
    sink_ = sum;
    return ACCESSES;
  }

  Memory memory_;
  uint64_t state_ = 1;
  volatile uint64_t sink_ = 0;  // somebody reads the result, so the compiler may not leave it out
};

class Chase final : public Kernel {
 public:
  explicit Chase(std::size_t bytes) : memory_(bytes) {}

  uint64_t run(double level) override {
    const uint64_t lines = memory_.bytes() / LINE_BYTES;
    return duty(level, PERIOD_NS, [&] {
      for (int i = 0; i < ACCESSES / 8; ++i)
        state_ = next(state_ + memory_.words()[line_of(state_, lines)]);  // which is 0, as only the memory knows
      return uint64_t{ACCESSES / 8};
    });
  }

 private:
  Memory memory_;
  uint64_t state_ = 1;
};

std::size_t part_of_cache(double part) {
  return static_cast<std::size_t>(part * static_cast<double>(last_level_cache_bytes())) & ~(LINE_BYTES - 1);
}

}  // namespace

std::unique_ptr<Kernel> make_cache(Role role) {
  if (role == Role::bubble) return std::make_unique<Gather>(part_of_cache(LARGEST_FOOTPRINT));
  return std::make_unique<Chase>(part_of_cache(REPORTER_FOOTPRINT));
}

}  // namespace tandem::bubbles
