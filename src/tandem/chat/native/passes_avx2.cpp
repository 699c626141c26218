#include <algorithm>
#include <cmath>

#include "passes.hpp"
#include "team.hpp"
#include "vectors_avx2.hpp"

namespace tandem::chat {
namespace {

constexpr int64_t PIECE_NUMBERS = 16384;  // 64 KB of each array

using tandem::sparse::share_out;

// Calls one(i, lanes in use) for each eight of `count` numbers; the last may be fewer.
template <class One>
inline void by_eight(int64_t count, const One& one) {
  int64_t i = 0;
  const __m256i all = _mm256_set1_epi32(-1);
  for (; i + 8 <= count; i += 8) one(i, all);
  if (i < count) one(i, lanes(count - i));
}

inline __m256 load(const float* from, __m256i used) { return _mm256_maskload_ps(from, used); }

template <class Work>
void by_tokens(int threads, int64_t tokens, const Work& work) {
  share_out(threads, (tokens + PIECE_TOKENS - 1) / PIECE_TOKENS, [&](int64_t piece) {
    const int64_t first = piece * PIECE_TOKENS;
    work(piece, first, std::min(tokens, first + PIECE_TOKENS));
  });
}

template <class Work>
void by_numbers(int threads, int64_t count, const Work& work) {
  share_out(threads, (count + PIECE_NUMBERS - 1) / PIECE_NUMBERS, [&](int64_t piece) {
    const int64_t first = piece * PIECE_NUMBERS;
    work(first, std::min(count, first + PIECE_NUMBERS) - first);
  });
}

inline __m256 sigmoid(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_div_ps(one, _mm256_add_ps(one, exp_of(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

}  // namespace

void norm(const Norm& norm, float eps, const float* x, const float* added, float* sum, float* y, float* factors,
          int threads) {
  const int64_t width = norm.width;
  by_tokens(threads, norm.tokens, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t m = first; m < last; ++m) {
      const float* whole = x + m * width;
      __m256 squares = _mm256_setzero_ps();
      if (added == nullptr) {
        by_eight(width, [&](int64_t e, __m256i used) {
          const __m256 v = load(whole + e, used);
          squares = _mm256_fmadd_ps(v, v, squares);
        });
      } else {
        const float* more = added + m * width;
        float* into = sum + m * width;
        by_eight(width, [&](int64_t e, __m256i used) {
          const __m256 v = _mm256_add_ps(load(whole + e, used), load(more + e, used));
          _mm256_maskstore_ps(into + e, used, v);
          squares = _mm256_fmadd_ps(v, v, squares);
        });
        whole = into;
      }
      factors[m] = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(width) + eps);
      const __m256 factor = _mm256_set1_ps(factors[m]);
      by_eight(width, [&](int64_t e, __m256i used) {
        const __m256 v = _mm256_mul_ps(load(whole + e, used), factor);
        _mm256_maskstore_ps(y + m * width + e, used, _mm256_mul_ps(load(norm.weight + e, used), v));
      });
    }
  });
}

void norm_backward(const Norm& norm, const float* dy, const float* dsum, const float* sum, const float* factors,
                   float* dx, float* shares, int threads) {
  const int64_t width = norm.width;
  by_tokens(threads, norm.tokens, [&](int64_t piece, int64_t first, int64_t last) {
    float* share = shares + piece * width;
    std::fill_n(share, width, 0.0f);
    for (int64_t m = first; m < last; ++m) {
      const float *s = sum + m * width, *d = dy + m * width;
      const __m256 factor = _mm256_set1_ps(factors[m]);
      __m256 along = _mm256_setzero_ps();  // of the normed token, times the weight's gradient
      by_eight(width, [&](int64_t e, __m256i used) {
        const __m256 of_y = _mm256_mul_ps(load(d + e, used), _mm256_mul_ps(load(s + e, used), factor));
        _mm256_maskstore_ps(share + e, used, _mm256_add_ps(load(share + e, used), of_y));
        along = _mm256_fmadd_ps(of_y, load(norm.weight + e, used), along);
      });
      const __m256 mean = _mm256_set1_ps(sum_of(along) / static_cast<float>(width) * factors[m]);
      by_eight(width, [&](int64_t e, __m256i used) {
        const __m256 straight = _mm256_mul_ps(load(d + e, used), load(norm.weight + e, used));
        __m256 v = _mm256_mul_ps(_mm256_fnmadd_ps(load(s + e, used), mean, straight), factor);
        if (dsum != nullptr) v = _mm256_add_ps(v, load(dsum + m * width + e, used));
        _mm256_maskstore_ps(dx + m * width + e, used, v);
      });
    }
  });
}

void rotate(const Heads& heads, const float* cosines, const float* sines, int64_t table, bool transposed, float* y,
            int threads) {
  const int64_t size = heads.size, half = size / 2;
  by_tokens(threads, heads.rows * heads.tokens, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t m = first; m < last; ++m) {
      const float *c = cosines + m % table * size, *s = sines + m % table * size;
      const float* token = heads.x + m / heads.tokens * heads.row_stride + m % heads.tokens * heads.token_stride;
      for (int64_t h = 0; h < heads.heads; ++h) {
        const float *low = token + h * heads.head_stride, *high = low + half;
        float *into = y + (m * heads.heads + h) * size, *above = into + half;
        if (transposed) {
          by_eight(half, [&](int64_t i, __m256i used) {
            const __m256 a = load(low + i, used), b = load(high + i, used);
            const __m256 bs = _mm256_mul_ps(b, load(s + half + i, used)), as = _mm256_mul_ps(a, load(s + i, used));
            _mm256_maskstore_ps(into + i, used, _mm256_fmadd_ps(a, load(c + i, used), bs));
            _mm256_maskstore_ps(above + i, used, _mm256_fmsub_ps(b, load(c + half + i, used), as));
          });
        } else {
          by_eight(half, [&](int64_t i, __m256i used) {
            const __m256 a = load(low + i, used), b = load(high + i, used);
            const __m256 bs = _mm256_mul_ps(b, load(s + i, used)), as = _mm256_mul_ps(a, load(s + half + i, used));
            _mm256_maskstore_ps(into + i, used, _mm256_fmsub_ps(a, load(c + i, used), bs));
            _mm256_maskstore_ps(above + i, used, _mm256_fmadd_ps(b, load(c + half + i, used), as));
          });
        }
      }
    }
  });
}

void gate(const float* gates, const float* ups, int64_t count, float* y, int threads) {
  by_numbers(threads, count, [&](int64_t first, int64_t numbers) {
    by_eight(numbers, [&](int64_t at, __m256i used) {
      const int64_t i = first + at;
      const __m256 g = load(gates + i, used);
      const __m256 silu = _mm256_mul_ps(g, sigmoid(g));
      _mm256_maskstore_ps(y + i, used, _mm256_mul_ps(silu, load(ups + i, used)));
    });
  });
}

void gate_backward(const float* dy, const float* gates, const float* ups, int64_t count, float* dgates, float* dups,
                   int threads) {
  const __m256 one = _mm256_set1_ps(1.0f);
  by_numbers(threads, count, [&](int64_t first, int64_t numbers) {
    by_eight(numbers, [&](int64_t at, __m256i used) {
      const int64_t i = first + at;
      const __m256 g = load(gates + i, used), d = load(dy + i, used);
      const __m256 s = sigmoid(g), silu = _mm256_mul_ps(g, s);
      const __m256 slope = _mm256_fmadd_ps(silu, _mm256_sub_ps(one, s), s);
      _mm256_maskstore_ps(dups + i, used, _mm256_mul_ps(d, silu));
      _mm256_maskstore_ps(dgates + i, used, _mm256_mul_ps(_mm256_mul_ps(d, load(ups + i, used)), slope));
    });
  });
}

}  // namespace tandem::chat
