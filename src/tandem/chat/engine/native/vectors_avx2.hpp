// What a step is made of: dot products of a few rows by a few rows, sums and exponentials, eight numbers at a time.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>

namespace tandem::chat {

// The first `count` of eight lanes.
inline __m256i lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// The sums of four vectors.
inline __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

// e^x with a relative error below 2e-7; 0 from -87.3 down. Source: Moshier, Cephes Mathematical Library, expf.
inline __m256 exp_of(__m256 x) {
  const __m256 least = _mm256_set1_ps(-87.3f);
  const __m256 alive = _mm256_cmp_ps(x, least, _CMP_NLE_UQ);  // NaN stays NaN
  x = _mm256_min_ps(_mm256_set1_ps(88.3f), x);
  x = _mm256_max_ps(least, x);
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
  }
  p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(power)), alive);
}

// Numbers [first, last) that are needed soon: brought into the cache meanwhile, a line with each eight inputs.
struct Ahead {
  const float* first = nullptr;
  const float* last = nullptr;
};

// Dot products of ROWS rows of x with four rows of a weight: out[r] holds those of row r. Each is one sum in one
// order, whatever ROWS is.
template <int ROWS>
inline void dots(const float* x, int64_t x_stride, const float* weight, int64_t weight_stride, int64_t inputs,
                 Ahead ahead, __m128* out) {
  __m256 sums[ROWS][4];
  for (int r = 0; r < ROWS; ++r) {
    for (int m = 0; m < 4; ++m) sums[r][m] = _mm256_setzero_ps();
  }
  int64_t k = 0;
  for (; k + 8 <= inputs; k += 8) {
    if (ahead.first < ahead.last) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead.first), _MM_HINT_T0);
      ahead.first += 16;
    }
    __m256 rows[ROWS];
    for (int r = 0; r < ROWS; ++r) rows[r] = _mm256_loadu_ps(x + r * x_stride + k);
    for (int m = 0; m < 4; ++m) {
      const __m256 w = _mm256_loadu_ps(weight + m * weight_stride + k);
      for (int r = 0; r < ROWS; ++r) sums[r][m] = _mm256_fmadd_ps(rows[r], w, sums[r][m]);
    }
  }
  if (k < inputs) {
    const __m256i left = lanes(inputs - k);
    for (int m = 0; m < 4; ++m) {
      const __m256 w = _mm256_maskload_ps(weight + m * weight_stride + k, left);
      for (int r = 0; r < ROWS; ++r) {
        sums[r][m] = _mm256_fmadd_ps(_mm256_maskload_ps(x + r * x_stride + k, left), w, sums[r][m]);
      }
    }
  }
  for (int r = 0; r < ROWS; ++r) out[r] = sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
}

}  // namespace tandem::chat
