// The path that runs anywhere, and the widening that all share.
#include <algorithm>
#include <cstring>

#include "product.hpp"

namespace tandem::sparse {
namespace {

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float from_half(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0));
  if (exponent != 0) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 0x1p-24f;
  return sign ? -tiny : tiny;
}

}  // namespace

float widened(const Weight& weight, int64_t i) {
  if (weight.kind == Kind::int8) return static_cast<float>(static_cast<int8_t>(weight.values[i]));
  uint16_t half;
  std::memcpy(&half, weight.values + 2 * i, sizeof half);
  return weight.kind == Kind::bf16 ? from_bits(uint32_t{half} << 16) : from_half(half);
}

namespace {

class ScalarJob final : public Job {
 public:
  ScalarJob(const Weight& weight, const Columns& columns) : weight_(weight), columns_(columns) {}

  void strips(int64_t first, int64_t last, float* sums) const override {
    for (int64_t strip = first; strip < last; ++strip, sums += 8 * columns_.count) one_strip(strip, sums);
  }

 private:
  void one_strip(int64_t strip, float* sums) const {
    for (int64_t i = 0; i < 8 * columns_.count; ++i) sums[i] = 0;
    int64_t at = weight_.starts[strip];
    for (int64_t tile = 0; tile < weight_.tiles(); ++tile) {
      for (uint64_t mask = weight_.masks[strip * weight_.tiles() + tile]; mask != 0; mask &= mask - 1) {
        const int bit = __builtin_ctzll(mask);
        const float value = widened(weight_, at++);
        const float* x = columns_.x + 8 * tile + bit % 8;
        for (int64_t n = 0; n < columns_.count; ++n) sums[8 * n + bit / 8] += value * x[n * columns_.stride];
      }
    }
  }

  const Weight& weight_;
  const Columns& columns_;
};

}  // namespace

void decode_scalar(const Weight& weight, int64_t strip, float* dense, int64_t stride) {
  for (int64_t row = 0; row < 8; ++row) std::fill(dense + row * stride, dense + row * stride + 8 * weight.tiles(), 0.0f);
  int64_t at = weight.starts[strip];
  for (int64_t tile = 0; tile < weight.tiles(); ++tile) {
    for (uint64_t mask = weight.masks[strip * weight.tiles() + tile]; mask != 0; mask &= mask - 1) {
      const int bit = __builtin_ctzll(mask);
      const float scale = weight.scales == nullptr ? 1 : weight.scales[8 * strip + bit / 8];
      dense[bit / 8 * stride + 8 * tile + bit % 8] = scale * widened(weight, at++);
    }
  }
}

std::unique_ptr<Job> begin_scalar(const Weight& weight, const Columns& columns, Way) {
  return std::make_unique<ScalarJob>(weight, columns);
}

}  // namespace tandem::sparse
