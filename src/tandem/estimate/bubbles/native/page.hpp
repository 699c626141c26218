// The memory that a bubble's process shares with whoever started it (tandem.estimate.bubbles.process reads it).
#pragma once

#include <atomic>
#include <cstdint>

namespace tandem::bubbles {

enum State : uint32_t { STARTING = 0, IDLE = 1, RUNNING = 2 };

// One thread's account. A reader takes `sequence` before and after, and again where they differ or are odd.
struct alignas(64) Slot {
  std::atomic<uint64_t> sequence;
  std::atomic<uint64_t> count;   // operations so far
  std::atomic<int64_t> time_ns;  // CLOCK_MONOTONIC at which that was so
  std::atomic<uint32_t> state;
};
static_assert(sizeof(Slot) == 64 && std::atomic<uint64_t>::is_always_lock_free);

constexpr int MOST_THREADS = 4096;

struct Page {
  char failure[256];  // why the process ended by itself; empty otherwise
  Slot slots[MOST_THREADS];
};

inline void publish(Slot& slot, uint64_t count, int64_t time_ns, State state) {
  const uint64_t sequence = slot.sequence.load(std::memory_order_relaxed);
  slot.sequence.store(sequence + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  slot.count.store(count, std::memory_order_relaxed);
  slot.time_ns.store(time_ns, std::memory_order_relaxed);
  slot.state.store(state, std::memory_order_relaxed);
  slot.sequence.store(sequence + 2, std::memory_order_release);
}

}  // namespace tandem::bubbles
