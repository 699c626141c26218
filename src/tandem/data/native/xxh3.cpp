#include "xxh3.hpp"

#include <cstring>

namespace tandem::data {
namespace detail {

const uint8_t secret[secret_bytes] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4, 0x6d,
    0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0,
    0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0,
    0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b,
    0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0,
    0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3,
    0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3,
    0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1,
    0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40,
    0x7e};

}  // namespace detail

namespace {

using detail::secret;

constexpr uint64_t prime32_2 = 0x85EBCA77u, prime32_3 = 0xC2B2AE3Du;
constexpr uint64_t prime64_1 = 0x9E3779B185EBCA87u, prime64_2 = 0xC2B2AE3D27D4EB4Fu, prime64_3 = 0x165667B19E3779F9u,
                   prime64_4 = 0x85EBCA77C2B2AE63u, prime64_5 = 0x27D4EB2F165667C5u;
constexpr size_t medium_bytes = 240;

uint32_t load32(const uint8_t* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint64_t load64(const uint8_t* at) {
  uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint64_t folded_product(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t avalanche(uint64_t hash) {
  hash ^= hash >> 37;
  hash *= 0x165667919E3779F9u;
  return hash ^ (hash >> 32);
}

uint64_t avalanche_xxh64(uint64_t hash) {
  hash ^= hash >> 33;
  hash *= prime64_2;
  hash ^= hash >> 29;
  hash *= prime64_3;
  return hash ^ (hash >> 32);
}

uint64_t rotated(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

uint64_t up_to_16(const uint8_t* from, size_t size) {
  if (size > 8) {
    const uint64_t low = load64(from) ^ load64(secret + 24) ^ load64(secret + 32);
    const uint64_t high = load64(from + size - 8) ^ load64(secret + 40) ^ load64(secret + 48);
    return avalanche(size + __builtin_bswap64(low) + high + folded_product(low, high));
  }
  if (size >= 4) {
    const uint64_t both = load32(from + size - 4) + (static_cast<uint64_t>(load32(from)) << 32);
    uint64_t hash = both ^ load64(secret + 8) ^ load64(secret + 16);
    hash ^= rotated(hash, 49) ^ rotated(hash, 24);
    hash *= 0x9FB21C651E98DF25u;
    hash ^= (hash >> 35) + size;
    hash *= 0x9FB21C651E98DF25u;
    return hash ^ (hash >> 28);
  }
  if (size > 0) {
    const uint32_t first = from[0], middle = from[size / 2], last = from[size - 1];
    const uint32_t all = first << 16 | middle << 24 | last | static_cast<uint32_t>(size) << 8;
    return avalanche_xxh64(static_cast<uint64_t>(all) ^ (load32(secret) ^ load32(secret + 4)));
  }
  return avalanche_xxh64(load64(secret + 56) ^ load64(secret + 64));
}

uint64_t mix16(const uint8_t* from, const uint8_t* key) {
  return folded_product(load64(from) ^ load64(key), load64(from + 8) ^ load64(key + 8));
}

uint64_t up_to_128(const uint8_t* from, size_t size) {
  uint64_t hash = size * prime64_1;
  for (size_t i = (size - 1) / 32 + 1; i-- > 0;) {
    hash += mix16(from + 16 * i, secret + 32 * i) + mix16(from + size - 16 * (i + 1), secret + 32 * i + 16);
  }
  return avalanche(hash);
}

uint64_t up_to_240(const uint8_t* from, size_t size) {
  uint64_t hash = size * prime64_1;
  for (size_t i = 0; i < 8; ++i) hash += mix16(from + 16 * i, secret + 16 * i);
  hash = avalanche(hash);
  for (size_t i = 8; i < size / 16; ++i) hash += mix16(from + 16 * i, secret + 16 * (i - 8) + 3);
  return avalanche(hash + mix16(from + size - 16, secret + 136 - 17));
}

uint64_t up_to_medium(const uint8_t* from, size_t size) {
  if (size <= 16) return up_to_16(from, size);
  return size <= 128 ? up_to_128(from, size) : up_to_240(from, size);
}

void add_stripe(uint64_t* lanes, const uint8_t* from, const uint8_t* key) {
  for (size_t i = 0; i < 8; ++i) {
    const uint64_t value = load64(from + 8 * i), keyed = value ^ load64(key + 8 * i);
    lanes[i ^ 1] += value;
    lanes[i] += (keyed & 0xFFFFFFFFu) * (keyed >> 32);
  }
}

void accumulate_scalar(uint64_t* lanes, uint8_t* to, const uint8_t* from, size_t size) {
  using namespace detail;
  const size_t stripes = (size - 1) / stripe_bytes;
  uint8_t taken[stripe_bytes];  // loaded once
  for (size_t stripe = 0; stripe < stripes; ++stripe) {
    const size_t place = stripe % block_stripes;
    std::memcpy(taken, from + stripe * stripe_bytes, stripe_bytes);
    if (to) std::memcpy(to + stripe * stripe_bytes, taken, stripe_bytes);
    add_stripe(lanes, taken, secret + 8 * place);
    if (place + 1 < block_stripes) continue;
    for (size_t i = 0; i < 8; ++i) {
      lanes[i] ^= lanes[i] >> 47;
      lanes[i] ^= load64(secret + secret_bytes - stripe_bytes + 8 * i);
      lanes[i] *= prime32_1;
    }
  }
  if (to) {
    std::memcpy(to + stripes * stripe_bytes, from + stripes * stripe_bytes, size - stripes * stripe_bytes);
    from = to;
  }
  add_stripe(lanes, from + size - stripe_bytes, secret + secret_bytes - stripe_bytes - 7);
}

uint64_t long_hash(detail::Accumulate accumulate, uint8_t* to, const uint8_t* from, size_t size) {
  alignas(64) uint64_t lanes[8] = {prime32_3, prime64_1, prime64_2, prime64_3,
                                   prime64_4, prime32_2, prime64_5, detail::prime32_1};
  accumulate(lanes, to, from, size);
  uint64_t hash = size * prime64_1;
  for (size_t i = 0; i < 4; ++i) {
    hash += folded_product(lanes[2 * i] ^ load64(secret + 11 + 16 * i), lanes[2 * i + 1] ^ load64(secret + 19 + 16 * i));
  }
  return avalanche(hash);
}

detail::Accumulate chosen() {
#if defined(TANDEM_AVX2)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) return detail::accumulate_avx2;
#endif
  return accumulate_scalar;
}

const detail::Accumulate best = chosen();

uint64_t hash_with(detail::Accumulate accumulate, const uint8_t* from, size_t size) {
  return size <= medium_bytes ? up_to_medium(from, size) : long_hash(accumulate, nullptr, from, size);
}

uint64_t copy_with(detail::Accumulate accumulate, uint8_t* to, const uint8_t* from, size_t size) {
  if (size > medium_bytes) return long_hash(accumulate, to, from, size);
  if (size > 0) std::memcpy(to, from, size);
  return up_to_medium(to, size);
}

}  // namespace

uint64_t xxh3(const uint8_t* from, size_t size) { return hash_with(best, from, size); }
uint64_t copy_xxh3(uint8_t* to, const uint8_t* from, size_t size) { return copy_with(best, to, from, size); }
uint64_t xxh3_scalar(const uint8_t* from, size_t size) { return hash_with(accumulate_scalar, from, size); }
uint64_t copy_xxh3_scalar(uint8_t* to, const uint8_t* from, size_t size) {
  return copy_with(accumulate_scalar, to, from, size);
}
const char* xxh3_backend() { return best == accumulate_scalar ? "scalar" : "avx2"; }

}  // namespace tandem::data
