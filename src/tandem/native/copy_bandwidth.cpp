#include "copy_bandwidth.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace tandem {
namespace {

using SteadyClock = std::chrono::steady_clock;

double seconds_since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// One thread's share of the three arrays. They are allocated and first touched by the thread that streams through
// them, so that the pages lie in its NUMA domain.
struct Arrays {
  explicit Arrays(std::size_t count)
      : count(count), a(new double[count]), b(new double[count]), c(new double[count]) {
    std::fill_n(a.get(), count, 0.0);
    std::fill_n(b.get(), count, 1.0);
    std::fill_n(c.get(), count, 2.0);
  }

  void triad(double scale) {
    double* __restrict to = a.get();
    const double* __restrict x = b.get();
    const double* __restrict y = c.get();
    for (std::size_t i = 0; i < count; ++i) to[i] = x[i] + scale * y[i];
  }

  std::size_t count;
  std::unique_ptr<double[]> a, b, c;
};

// What the threads share: a starting gate, and the sum of what each of them reached.
struct Measurement {
  std::atomic<int> waiting;
  std::mutex mutex;
  double bytes_per_s = 0;
  volatile double last_value = 0;
  std::exception_ptr error;
};

void stream(Measurement& shared, std::size_t count, double seconds) {
  std::unique_ptr<Arrays> arrays;
  try {
    arrays = std::make_unique<Arrays>(count);
  } catch (...) {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    shared.error = std::current_exception();
  }
  --shared.waiting;
  while (shared.waiting > 0) std::this_thread::yield();
  if (!arrays) return;

  const auto start = SteadyClock::now();
  double elapsed_s = 0;
  std::size_t passes = 0;
  do {
    arrays->triad(1.0 + 1e-9 * static_cast<double>(passes));
    ++passes;
    elapsed_s = seconds_since(start);
  } while (elapsed_s < seconds);

  const double moved = 3.0 * sizeof(double) * static_cast<double>(count) * static_cast<double>(passes);
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.bytes_per_s += moved / elapsed_s;
  shared.last_value = arrays->a[count / 2];  // somebody reads the result, so the compiler may not leave it out
}

}  // namespace

double copy_bandwidth(int threads, std::size_t bytes, double seconds) {
  if (threads < 1 || !(seconds > 0)) throw std::invalid_argument("threads and seconds must be positive");
  const std::size_t count = bytes / (3 * sizeof(double) * static_cast<std::size_t>(threads));
  if (count == 0) throw std::invalid_argument("too few bytes for three arrays on every thread");
  Measurement shared;
  shared.waiting = threads;
  std::vector<std::thread> team;
  team.reserve(static_cast<std::size_t>(threads));
  try {
    for (int i = 0; i < threads; ++i) team.emplace_back(stream, std::ref(shared), count, seconds);
  } catch (...) {  // no more threads to be had: let those that wait at the gate go, then report
    shared.waiting = 0;
    for (auto& thread : team) thread.join();
    throw;
  }
  for (auto& thread : team) thread.join();
  if (shared.error) std::rethrow_exception(shared.error);
  return shared.bytes_per_s;
}

}  // namespace tandem
