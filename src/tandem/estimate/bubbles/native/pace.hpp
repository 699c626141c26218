// The clock, and pauses that end when they should.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>

namespace tandem::bubbles {

constexpr int64_t MICROSECOND = 1000;
constexpr int64_t MILLISECOND = 1000 * MICROSECOND;

inline int64_t clock_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

inline int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Sleeps while there is time for it and spins through the last stretch: a sleeper wakes some 50 microseconds late.
inline void rest_until(int64_t end_ns) {
  constexpr int64_t SPIN_NS = 150 * MICROSECOND;
  const int64_t left = end_ns - now_ns();
  if (left > SPIN_NS) {
    const int64_t sleep_ns = left - SPIN_NS;
    const timespec t{static_cast<time_t>(sleep_ns / 1000000000), static_cast<long>(sleep_ns % 1000000000)};
    nanosleep(&t, nullptr);
  }
  while (now_ns() < end_ns) relax();
}

// Repeats `chunk` (which returns operations) through `level` of a period, then pauses through the rest of it.
template <class Chunk>
uint64_t duty(double level, int64_t period_ns, Chunk&& chunk) {
  const int64_t start = now_ns();
  const int64_t pause_at = start + static_cast<int64_t>(std::min(level, 1.0) * static_cast<double>(period_ns));
  uint64_t done = 0;
  do done += chunk();
  while (now_ns() < pause_at);
  if (level < 1) rest_until(start + period_ns);
  return done;
}

// Does one operation of unknown length, then pauses so that `level` is the part of the time spent in it.
template <class Operation>
uint64_t paced(double level, Operation&& operation) {
  constexpr double LONGEST_PAUSE_NS = 10.0 * MILLISECOND;  // a new level is heeded no later than that
  const int64_t start = now_ns();
  operation();
  if (level < 1) {
    const int64_t end = now_ns();
    const double pause_ns = static_cast<double>(end - start) * (1 - level) / level;
    rest_until(end + static_cast<int64_t>(std::min(pause_ns, LONGEST_PAUSE_NS)));
  }
  return 1;
}

}  // namespace tandem::bubbles
