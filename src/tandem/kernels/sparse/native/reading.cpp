#include "reading.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "team.hpp"

namespace tandem::sparse {

double read_bandwidth(int threads, const std::vector<Part>& parts, double seconds) {
  constexpr size_t lanes = 32, piece = 1 << 18;  // words: a piece is 2 MiB, as long a run as a product reads
  struct Piece {
    const uint64_t* at;
    size_t words;
  };
  std::vector<Piece> pieces;
  size_t all = 0;
  for (const auto& [address, bytes] : parts) {
    const size_t words = bytes / sizeof(uint64_t) / lanes * lanes;
    for (size_t first = 0; first < words; first += piece)
      pieces.push_back({reinterpret_cast<const uint64_t*>(address) + first, std::min(piece, words - first)});
    all += words;
  }
  if (threads < 1 || pieces.empty() || !(seconds > 0))
    throw std::invalid_argument("threads, parts of at least 256 bytes and seconds are needed");
  std::atomic<uint64_t> sum{0};
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (const auto begin = Clock::now(); std::chrono::duration<double>(Clock::now() - begin).count() < seconds;) {
    const auto pass = Clock::now();
    share_out(threads, static_cast<int64_t>(pieces.size()), [&](int64_t i) {
      const Piece& own = pieces[static_cast<size_t>(i)];
      uint64_t lane_sums[lanes] = {};
      for (size_t k = 0; k < own.words; k += lanes)
        for (size_t lane = 0; lane < lanes; ++lane) lane_sums[lane] += own.at[k + lane];
      sum += std::accumulate(lane_sums, lane_sums + lanes, uint64_t{0});
    });
    const double took = std::chrono::duration<double>(Clock::now() - pass).count();
    best = std::max(best, static_cast<double>(sizeof(uint64_t) * all) / took);
  }
  static std::atomic<uint64_t> looked_at;  // so that sums are computed
  looked_at.store(sum, std::memory_order_relaxed);
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
