// The long inputs of XXH3 with AVX2. This file alone is compiled for it, and only called where the processor has it.
#include <immintrin.h>

#include <cstring>

#include "xxh3.hpp"

namespace tandem::data::detail {
namespace {

constexpr size_t prefetch_bytes = 512;  // processors do not prefetch across a page of their own accord

__m256i load(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }

struct Lanes {
  __m256i low, high;
};

__m256i added(__m256i lanes, __m256i value, __m256i key) {
  const __m256i keyed = _mm256_xor_si256(value, key);
  const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
  const __m256i swapped = _mm256_shuffle_epi32(value, _MM_SHUFFLE(1, 0, 3, 2));
  return _mm256_add_epi64(lanes, _mm256_add_epi64(product, swapped));
}

__m256i scrambled(__m256i lanes, __m256i key) {
  const __m256i prime = _mm256_set1_epi32(static_cast<int>(prime32_1));
  const __m256i mixed = _mm256_xor_si256(_mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47)), key);
  const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
  return _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64(high, 32));
}

template <bool copy>
Lanes with_stripe(Lanes lanes, uint8_t* to, const uint8_t* from, const uint8_t* key) {
  const __m256i low = load(from), high = load(from + 32);
  if constexpr (copy) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32), high);
  }
  return {added(lanes.low, low, load(key)), added(lanes.high, high, load(key + 32))};
}

template <bool copy>
void accumulate(uint64_t* out, uint8_t* to, const uint8_t* from, size_t size) {
  Lanes lanes{load(out), load(out + 4)};
  const uint8_t* const last_key = secret + secret_bytes - stripe_bytes;
  const size_t stripes = (size - 1) / stripe_bytes, blocks = stripes / block_stripes;
  const uint8_t* source = from;
  uint8_t* target = to;
  for (size_t block = 0; block < blocks; ++block) {
    for (size_t i = 0; i < block_stripes; ++i, source += stripe_bytes) {
      _mm_prefetch(reinterpret_cast<const char*>(source + prefetch_bytes), _MM_HINT_T0);
      lanes = with_stripe<copy>(lanes, target, source, secret + 8 * i);
      if constexpr (copy) target += stripe_bytes;
    }
    lanes = {scrambled(lanes.low, load(last_key)), scrambled(lanes.high, load(last_key + 32))};
  }
  for (size_t i = 0; i < stripes % block_stripes; ++i, source += stripe_bytes) {
    lanes = with_stripe<copy>(lanes, target, source, secret + 8 * i);
    if constexpr (copy) target += stripe_bytes;
  }
  if constexpr (copy) {
    std::memcpy(target, source, size - stripes * stripe_bytes);
    from = to;  // the last stripe overlaps what was loaded before: take it from the copy
  }
  lanes = with_stripe<false>(lanes, nullptr, from + size - stripe_bytes, last_key - 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), lanes.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4), lanes.high);
}

}  // namespace

void accumulate_avx2(uint64_t* lanes, uint8_t* to, const uint8_t* from, size_t size) {
  if (to) {
    accumulate<true>(lanes, to, from, size);
  } else {
    accumulate<false>(lanes, nullptr, from, size);
  }
}

}  // namespace tandem::data::detail
