// Last-level cache. The bubble sweeps line by line round a footprint that grows with the dial, so that whatever lies in
// the cache beside it is pushed out. The reporter chases through footprints of a sixteenth to half of the cache, each
// address depending on what was read before, so that it feels every line that was taken from it; several footprints,
// because a virtual machine seldom has the whole cache that it is shown.
#include <cmath>

#include "kernel.hpp"
#include "memory.hpp"
#include "pace.hpp"

namespace tandem::bubbles {
namespace {

constexpr int64_t PERIOD_NS = 100 * MICROSECOND;
constexpr double SMALLEST_FOOTPRINT = 1.0 / 64;  // of the cache; the dial goes from here by equal factors
constexpr double LARGEST_FOOTPRINT = 1.5;
constexpr double REPORTER_FOOTPRINT = 0.5;
constexpr std::size_t LINE_WORDS = LINE_BYTES / sizeof(uint64_t);
constexpr uint64_t SWEPT = 256, CHASED = 32;  // lines between two looks at the clock: a few microseconds

// A full-period generator (Knuth's multiplier for MMIX); its high bits choose the line.
inline uint64_t next(uint64_t x) { return x * 6364136223846793005ULL + 1442695040888963407ULL; }

class Sweep final : public Kernel {
 public:
  explicit Sweep(std::size_t bytes) : memory_(bytes) {}

  uint64_t run(double level) override {
    const auto all = static_cast<double>(memory_.bytes() / LINE_BYTES);
    const double part = std::pow(LARGEST_FOOTPRINT / SMALLEST_FOOTPRINT, std::min(level, 1.0) - 1);
    const auto lines = std::max(SWEPT, static_cast<uint64_t>(part * all));
    return duty(1.0, PERIOD_NS, [&] { return sweep(lines); });
  }

 private:
  uint64_t sweep(uint64_t lines) {
    uint64_t sum = 0;
    if (at_ + SWEPT > lines) at_ = 0;
    for (const uint64_t end = at_ + SWEPT; at_ < end; ++at_) sum += memory_.words()[at_ * LINE_WORDS];
    sink_ = sum;
    return SWEPT;
  }

  Memory memory_;
  uint64_t at_ = 0;
  volatile uint64_t sink_ = 0;  // somebody reads the result, so the compiler may not leave it out
};

class Chase final : public Kernel {
 public:
  explicit Chase(std::size_t bytes) : memory_(bytes) {}

  uint64_t run(double level) override {
    const uint64_t all = memory_.bytes() / LINE_BYTES;
    return duty(level, PERIOD_NS, [&] {
      for (uint64_t i = 0; i < CHASED; ++i) {
        const uint64_t lines = all >> (i % 4);  // half of the cache, a quarter, an eighth, a sixteenth
        const uint64_t line = ((state_ >> 32) * lines) >> 32;
        state_ = next(state_ + memory_.words()[line * LINE_WORDS]);  // plus 0, as only the memory knows
      }
      return CHASED;
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
  if (role == Role::bubble) return std::make_unique<Sweep>(part_of_cache(LARGEST_FOOTPRINT));
  return std::make_unique<Chase>(part_of_cache(REPORTER_FOOTPRINT));
}

}  // namespace tandem::bubbles
