// A core's time. At level x a bubble wants x / (1 + x) of its core, in slices of milliseconds: beside it a reporter is
// left 1 / (1 + x) and so slowed by 1 + x; at level 1 the bubble never sleeps and the kernel halves the core.
#include "kernel.hpp"
#include "pace.hpp"

namespace tandem::bubbles {
namespace {

constexpr int64_t PERIOD_NS = 4 * MILLISECOND;
constexpr int64_t TURN_NS = MILLISECOND;  // without pauses
constexpr int STEPS = 4000;               // some microseconds of dependent multiplications

class Spin final : public Kernel {
 public:
  uint64_t run(double level) override {
    const int64_t start = now_ns();
    const int64_t used = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    const auto wanted =
        level < 1 ? static_cast<int64_t>(level / (1 + level) * static_cast<double>(PERIOD_NS)) : TURN_NS;
    uint64_t done = 0;
    do done += multiply();
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) - used < wanted);  // time it had, not time that went by
    if (level < 1) sleep_until(start + PERIOD_NS);
    return done;
  }

 private:
  uint64_t multiply() {
    uint64_t x = state_;
    for (int i = 0; i < STEPS; ++i) x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    state_ = x;
    return STEPS / 1000;
  }

  // Never spins: what it does not use belongs to the neighbour.
  static void sleep_until(int64_t end_ns) {
    const timespec t{static_cast<time_t>(end_ns / 1000000000), static_cast<long>(end_ns % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
  }

  volatile uint64_t state_ = 1;
};

}  // namespace

std::unique_ptr<Kernel> make_cpu() { return std::make_unique<Spin>(); }

}  // namespace tandem::bubbles
