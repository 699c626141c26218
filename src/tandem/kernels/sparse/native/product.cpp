#include "product.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "team.hpp"

namespace tandem::sparse {
namespace {

constexpr int64_t strips_a_piece = 8;

// x where it already is as the paths want it, or a copy of float32 whose rows are padded. bf16 is widened here: as a torch
// operation it would wake torch's own threads, which then spin on the cores that the product needs.
class PaddedColumns {
 public:
  PaddedColumns(const Weight& weight, const void* x, int64_t count, bool is_bf16)
      : columns_{static_cast<const float*>(x), count, 8 * weight.tiles(), is_bf16} {
    if (columns_.stride == weight.cols && !is_bf16) return;
    copy_.resize(static_cast<size_t>(count * columns_.stride));
    for (int64_t n = 0; n < count; ++n) {
      float* to = &copy_[static_cast<size_t>(n * columns_.stride)];
      if (is_bf16)
        widen(static_cast<const uint16_t*>(x) + n * weight.cols, weight.cols, to);
      else
        std::memcpy(to, columns_.x + n * weight.cols, sizeof(float) * static_cast<size_t>(weight.cols));
    }
    columns_.x = copy_.data();
  }
  const Columns& get() const { return columns_; }

 private:
  static void widen(const uint16_t* bf16, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = static_cast<uint32_t>(bf16[i]) << 16;
      std::memcpy(to + i, &bits, sizeof bits);
    }
  }

  Columns columns_;
  std::vector<float> copy_;
};

float activated(Activation activation, float value) {
  switch (activation) {
    case Activation::none: return value;
    case Activation::relu: return value < 0 ? 0 : value;
    case Activation::silu: return value / (1 + std::exp(-value));
    case Activation::gelu: return 0.5f * value * (1 + std::erf(value * 0.70710678118654752f));
    case Activation::gelu_tanh:
      return 0.5f * value * (1 + std::tanh(0.79788456080286536f * (value + 0.044715f * value * value * value)));
  }
  return value;
}

// A row times a column, int8 with its scale, where the sum without the scale is beyond float32.
float product_in_double(const Weight& weight, const Columns& columns, int64_t row, int64_t n) {
  const int64_t strip = row / 8, shift = 8 * (row % 8);
  const float* x = columns.x + n * columns.stride;
  int64_t begins = weight.starts[strip];
  double sum = 0;
  for (int64_t tile = 0; tile < weight.tiles(); ++tile, x += 8) {
    const uint64_t mask = weight.masks[strip * weight.tiles() + tile];
    int64_t at = begins + __builtin_popcountll(mask & ((uint64_t{1} << shift) - 1));
    for (uint64_t own = mask >> shift & 255; own != 0; own &= own - 1)
      sum += double{widened(weight, at++)} * x[__builtin_ctzll(own)];
    begins += __builtin_popcountll(mask);
  }
  return static_cast<float>(sum * weight.scales[row]);
}

void finish(const Weight& weight, const Columns& columns, const Epilogue& epilogue, int64_t strip, const float* sums,
            float* y) {
  const int64_t first = 8 * strip, rows = std::min<int64_t>(8, weight.rows - first);
  for (int64_t n = 0; n < columns.count; ++n) {
    for (int64_t row = 0; row < rows; ++row) {
      float value = sums[8 * n + row];
      if (weight.scales != nullptr)
        value = std::isfinite(value) ? value * weight.scales[first + row]
                                     : product_in_double(weight, columns, first + row, n);
      if (epilogue.bias != nullptr) value += epilogue.bias[first + row];
      y[n * weight.rows + first + row] = activated(epilogue.activation, value);
    }
  }
}

}  // namespace

void product(Path path, const Weight& weight, const void* x, int64_t count, bool x_is_bf16, Way way,
             const Epilogue& epilogue, int threads, float* y) {
  const PaddedColumns columns(weight, x, count, x_is_bf16);
  const auto job = path(weight, columns.get(), way);
  const int64_t strips = weight.strips();
  share_out(threads, (strips + strips_a_piece - 1) / strips_a_piece, [&](int64_t piece) {
    thread_local std::vector<float> sums;
    sums.resize(static_cast<size_t>(8 * count * strips_a_piece));
    const int64_t first = piece * strips_a_piece, last = std::min(strips, first + strips_a_piece);
    job->strips(first, last, sums.data());
    for (int64_t strip = first; strip < last; ++strip)
      finish(weight, columns.get(), epilogue, strip, &sums[static_cast<size_t>((strip - first) * 8 * count)], y);
  });
}

void decode(const Weight& weight, int64_t first_strip, int64_t last_strip, int threads, float* dense, int64_t stride) {
  const Decoder one = decoder();
  share_out(threads, last_strip - first_strip,
            [&](int64_t strip) { one(weight, first_strip + strip, dense + 8 * strip * stride, stride); });
}

}  // namespace tandem::sparse
