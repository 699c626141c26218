// avx512_kernel.hpp for a processor that has AVX-512 with VBMI2 and VNNI. BF16 is asked for separately: Ice Lake has the others
// without it, and some that have it are slow at it.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "product.hpp"

namespace tandem::sparse {
namespace {
#include "avx512_kernel.hpp"

constexpr int sums = 8, turns = 256;

// Eight sums that do not wait for one another, so that it is throughput that is timed.
template <class Add>
double seconds_of(Add add) {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  __m512 sum[sums];
#pragma GCC unroll 8
  for (int i = 0; i < sums; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));  // equal ones would be made one
  for (int turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 8
    for (auto& one : sum) one = add(one);
  }
#pragma GCC unroll 8
  for (const auto& one : sum) asm volatile("" : : "v"(one));  // they are computed, though nobody reads them
  return std::chrono::duration<double>(Clock::now() - began).count();
}

}  // namespace

std::unique_ptr<Job> begin_avx512(const Weight& weight, const Columns& columns, Way) {
  return begin_512(weight, columns, false);
}

std::unique_ptr<Job> begin_avx512_bf16(const Weight& weight, const Columns& columns, Way) {
  return begin_512(weight, columns, true);
}

// One vdpbf16ps does the work of two vfmadd: in the time of one on Zen 4, of nearly four on Intel's Xeons of the fifth
// generation. The shortest of many times, some 50 us in all.
bool avx512_bf16_is_quick() {
  const __m512 one = _mm512_set1_ps(1);
  const auto pairs = (__m512bh)_mm512_set1_epi16(0x3f80);
  double dots = 1, pairs_of_fma = 1;
  for (int run = 0; run < 20; ++run) {
    dots = std::min(dots, seconds_of([&](const __m512& sum) { return _mm512_dpbf16_ps(sum, pairs, pairs); }));
    pairs_of_fma = std::min(pairs_of_fma, 2 * seconds_of([&](const __m512& sum) { return _mm512_fmadd_ps(one, one, sum); }));
  }
  return dots < pairs_of_fma;
}

}  // namespace tandem::sparse
