// The intrinsics that avx512_kernel.hpp uses, one lane at a time, as Intel's manual defines them. They bear the names of
// the real ones, so this is never included beside <immintrin.h>.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct __m128i { uint8_t byte[16]; };
struct __m256i { uint8_t byte[32]; };
struct __m512i { uint8_t byte[64]; };
struct __m128 { float lane[4]; };
struct __m256 { float lane[8]; };
struct __m512 { float lane[16]; };
using __m512bh = __m512i;

template <class To, class From>
To copied(const From& from) {
  To to;
  static_assert(sizeof to <= sizeof from);
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class Lane, class Vector>
Lane lane_of(const Vector& vector, int i) {
  Lane lane;
  std::memcpy(&lane, vector.byte + sizeof(Lane) * static_cast<size_t>(i), sizeof lane);
  return lane;
}

template <class Lane, class Vector>
void set_lane(Vector& vector, int i, Lane lane) {
  std::memcpy(vector.byte + sizeof(Lane) * static_cast<size_t>(i), &lane, sizeof lane);
}

template <class Vector>
Vector loaded(const void* at) {
  Vector vector;
  std::memcpy(&vector, at, sizeof vector);
  return vector;
}

template <class Lane, class Mask>
__m512i expanded(__m512i to, Mask mask, const __m512i& from) {
  for (int i = 0, next = 0; i < static_cast<int>(64 / sizeof(Lane)); ++i)
    if (mask >> i & 1) set_lane(to, i, lane_of<Lane>(from, next++));
  return to;
}

inline __m512 _mm512_setzero_ps() { return {}; }
inline __m512i _mm512_setzero_si512() { return {}; }
inline __m128i _mm_loadu_si128(const __m128i* at) { return loaded<__m128i>(at); }
inline __m128 _mm_loadu_ps(const float* at) { return loaded<__m128>(at); }
inline __m256 _mm256_loadu_ps(const float* at) { return loaded<__m256>(at); }
inline __m512i _mm512_loadu_si512(const void* at) { return loaded<__m512i>(at); }
inline void _mm512_storeu_ps(float* at, const __m512& from) { std::memcpy(at, &from, sizeof from); }
inline void _mm512_storeu_si512(void* at, const __m512i& from) { std::memcpy(at, &from, sizeof from); }
inline __m512 _mm512_castsi512_ps(const __m512i& from) { return copied<__m512>(from); }
inline __m256i _mm512_castsi512_si256(const __m512i& from) { return copied<__m256i>(from); }
inline __m256i _mm512_extracti64x4_epi64(const __m512i& from, int half) {
  return loaded<__m256i>(from.byte + 32 * half);
}
inline __m512i _mm512_mask_expand_epi16(const __m512i& else_, uint32_t mask, const __m512i& from) {
  return expanded<uint16_t>(else_, mask, from);
}
inline __m512i _mm512_mask_expand_epi8(const __m512i& else_, uint64_t mask, const __m512i& from) {
  return expanded<uint8_t>(else_, mask, from);
}

inline __m512i _mm512_xor_si512(const __m512i& a, const __m512i& b) {
  __m512i to;
  for (int i = 0; i < 64; ++i) to.byte[i] = a.byte[i] ^ b.byte[i];
  return to;
}

inline __m512i _mm512_and_si512(const __m512i& a, const __m512i& b) {
  __m512i to;
  for (int i = 0; i < 64; ++i) to.byte[i] = a.byte[i] & b.byte[i];
  return to;
}

inline __m512i _mm512_set1_epi32(int32_t value) {
  __m512i to;
  for (int i = 0; i < 16; ++i) set_lane(to, i, value);
  return to;
}

inline __m512i _mm512_set1_epi8(char value) {
  __m512i to;
  std::memset(to.byte, value, sizeof to.byte);
  return to;
}

inline __m512i _mm512_set1_epi16(int16_t value) {
  __m512i to;
  for (int i = 0; i < 32; ++i) set_lane(to, i, value);
  return to;
}

inline __m512i _mm512_set1_epi64(int64_t value) {
  __m512i to;
  for (int i = 0; i < 8; ++i) set_lane(to, i, value);
  return to;
}

inline __m512i _mm512_broadcast_i32x4(const __m128i& from) {
  __m512i to;
  for (int i = 0; i < 4; ++i) std::memcpy(to.byte + 16 * i, from.byte, 16);
  return to;
}

inline __m512 _mm512_broadcast_f32x4(const __m128& from) {
  __m512 to;
  for (int i = 0; i < 16; ++i) to.lane[i] = from.lane[i % 4];
  return to;
}

inline __m512 _mm512_broadcast_f32x8(const __m256& from) {
  __m512 to;
  for (int i = 0; i < 16; ++i) to.lane[i] = from.lane[i % 8];
  return to;
}

inline __m512i _mm512_cvtepu16_epi32(const __m256i& from) {
  __m512i to;
  for (int i = 0; i < 16; ++i) set_lane<uint32_t>(to, i, lane_of<uint16_t>(from, i));
  return to;
}

inline __m512i _mm512_slli_epi32(const __m512i& from, unsigned bits) {
  __m512i to;
  for (int i = 0; i < 16; ++i) set_lane<uint32_t>(to, i, lane_of<uint32_t>(from, i) << bits);
  return to;
}

inline __m512 _mm512_cvtph_ps(const __m256i& from) {
  __m512 to;
  for (int i = 0; i < 16; ++i) {
    const auto half = lane_of<uint16_t>(from, i);
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    float value = std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    to.lane[i] = std::copysign(value, half & 0x8000 ? -1.0f : 1.0f);
  }
  return to;
}

inline __m512 _mm512_fmadd_ps(const __m512& a, const __m512& b, const __m512& c) {
  __m512 to;
  for (int i = 0; i < 16; ++i) to.lane[i] = std::fma(a.lane[i], b.lane[i], c.lane[i]);
  return to;
}

inline __m512 _mm512_add_ps(const __m512& a, const __m512& b) {
  __m512 to;
  for (int i = 0; i < 16; ++i) to.lane[i] = a.lane[i] + b.lane[i];
  return to;
}

// Subnormal numbers count as zero, whatever the control register says.
inline float without_subnormals(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}

inline float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return without_subnormals(value);
}

inline __m512 _mm512_dpbf16_ps(const __m512& sums, const __m512bh& a, const __m512bh& b) {
  __m512 to;
  for (int i = 0; i < 16; ++i) {
    float sum = without_subnormals(sums.lane[i]);
    for (int k = 2 * i + 1; k >= 2 * i; --k)
      sum = without_subnormals(std::fma(from_bf16(lane_of<uint16_t>(a, k)), from_bf16(lane_of<uint16_t>(b, k)), sum));
    to.lane[i] = sum;
  }
  return to;
}

inline __m512i _mm512_dpbusd_epi32(const __m512i& sums, const __m512i& unsigned_bytes, const __m512i& signed_bytes) {
  __m512i to;
  for (int i = 0; i < 16; ++i) {
    auto sum = lane_of<uint32_t>(sums, i);  // wraps, as the instruction does
    for (int k = 4 * i; k < 4 * i + 4; ++k)
      sum += static_cast<uint32_t>(lane_of<uint8_t>(unsigned_bytes, k) * lane_of<int8_t>(signed_bytes, k));
    set_lane(to, i, sum);
  }
  return to;
}

}  // namespace
