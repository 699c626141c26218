#include "reading.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "team.hpp"

namespace tandem::sparse {

double read_bandwidth(int threads, size_t bytes, double seconds) {
  constexpr int64_t piece = 1 << 18;  // words: 2 MiB, as long a run as a product reads
  const auto pieces = static_cast<int64_t>(bytes / (8 * piece));
  if (threads < 1 || pieces < 1 || !(seconds > 0)) throw std::invalid_argument("threads, 2 MiB and seconds are needed");
  std::vector<uint64_t> words(static_cast<size_t>(piece * pieces), 1);
  std::atomic<uint64_t> sum{0};
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (const auto begin = Clock::now(); std::chrono::duration<double>(Clock::now() - begin).count() < seconds;) {
    const auto pass = Clock::now();
    share_out(threads, pieces, [&](int64_t i) {
      const uint64_t* at = words.data() + i * piece;
      uint64_t lanes[32] = {};
      for (int64_t k = 0; k < piece; k += 32)
        for (int lane = 0; lane < 32; ++lane) lanes[lane] += at[k + lane];
      sum += std::accumulate(lanes, lanes + 32, uint64_t{0});
    });
    const double took = std::chrono::duration<double>(Clock::now() - pass).count();
    best = std::max(best, 8.0 * static_cast<double>(piece * pieces) / took);
  }
  if (sum == 0) throw std::logic_error("nothing was read");  // somebody looks at the sum, so it is computed
  return best;
}

double clock_hz(double seconds) {
  constexpr int adds = 100'000;
  using Clock = std::chrono::steady_clock;
  double best = 0;
  uint64_t sum = 0, step = 1;
  asm volatile("" : "+r"(step));  // in a register: constants are added while instructions are renamed (Golden Cove), in no time
  for (const auto begin = Clock::now(); std::chrono::duration<double>(Clock::now() - begin).count() < seconds;) {
    const auto run = Clock::now();
#pragma GCC unroll 20
    for (int i = 0; i < adds; ++i) {
      sum += step;
      asm volatile("" : "+r"(sum));  // the compiler may not add several at once
    }
    best = std::max(best, adds / std::chrono::duration<double>(Clock::now() - run).count());
  }
  return best;
}

}  // namespace tandem::sparse
