// XXH3-64 with seed 0 and the default secret, after the public specification of xxHash; and the same while copying.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::data {

// The checksum of `size` bytes.
uint64_t xxh3(const uint8_t* from, size_t size);

// Copies `size` bytes and returns the checksum of what was copied: every byte is loaded once, so that what is checked
// is what was written even where the source changes meanwhile. The ranges do not overlap.
uint64_t copy_xxh3(uint8_t* to, const uint8_t* from, size_t size);

// The same by portable code alone, to be compared with.
uint64_t xxh3_scalar(const uint8_t* from, size_t size);
uint64_t copy_xxh3_scalar(uint8_t* to, const uint8_t* from, size_t size);

// Which code xxh3() runs: "avx2" or "scalar".
const char* xxh3_backend();

namespace detail {

constexpr size_t stripe_bytes = 64, secret_bytes = 192, block_stripes = (secret_bytes - stripe_bytes) / 8;
extern const uint8_t secret[secret_bytes];
constexpr uint64_t prime32_1 = 0x9E3779B1u;

// Accumulates a long input (more than 240 bytes) into eight lanes; with `to`, copies it as well.
using Accumulate = void (*)(uint64_t* lanes, uint8_t* to, const uint8_t* from, size_t size);
void accumulate_avx2(uint64_t* lanes, uint8_t* to, const uint8_t* from, size_t size);

}  // namespace detail
}  // namespace tandem::data
