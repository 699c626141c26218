// The AVX-512 path (VBMI2, VNNI, BF16): a whole vector of weights is expanded by one instruction, so that a tile of the
// bitmap takes two of them in 16 bits and one in 8.
//
// This file is compiled twice: by avx512.cpp with the processor's intrinsics, and by avx512_emulated.cpp with
// emulated_intrinsics.hpp, which plays them one lane at a time on any machine, so that this code is tested where no
// such processor is. It includes no intrinsics by itself and is included inside a namespace.
//
// `Dot`: bf16 weights, x exactly bf16: vdpbf16ps multiplies pairs of columns; 4 rows of 8 columns are one vector.
// `Wide`: bf16 and fp16 weights with any other x: widened to float32; 2 rows of 8 columns are one vector.
// `Bytes`: int8 weights: a tile is one vector. x is rounded to 16 bits of its column's largest value and goes as two
// bytes, so that vpdpbusd does it in two instructions with an error far below that of the weights.
//
// Expanding keeps a given vector where there is no weight. With zeros (the `maskz` form) Zen 4 waits for what the
// register held before, which is the last tile's weights more often than not: 7.6 cycles a tile of bytes against 4.9.

#include "panels.hpp"

constexpr int64_t strip_rows = 8;

inline int count_of(uint64_t mask) { return __builtin_popcountll(mask); }

// -0 where there is no weight: a compiler would turn +0 into the `maskz` form. No sum is -0, since it begins at +0.
inline __m512i expanded_16(const uint8_t* at, uint32_t mask) {
  return _mm512_mask_expand_epi16(_mm512_set1_epi16(INT16_MIN), mask, _mm512_loadu_si512(at));
}

// Bytes plus 128, without a sign: 128 where there is no weight.
inline __m512i expanded_8(const uint8_t* at, uint64_t mask) {
  const __m512i zero = _mm512_set1_epi8(INT8_MIN);
  return _mm512_mask_expand_epi8(zero, mask, _mm512_xor_si512(zero, _mm512_loadu_si512(at)));
}

inline void add_sixteen(__m512 lanes, int rows, float* sums) {
  alignas(64) float lane[16];
  _mm512_storeu_ps(lane, lanes);
  const int width = 16 / rows;
  for (int row = 0; row < rows; ++row) {
    float sum = 0;
    for (int i = 0; i < width; ++i) sum += lane[width * row + i];
    sums[row] = sum;
  }
}

// Asks for what is read some tiles later: by itself a processor fetches too little of two streams at once (Zen 4 read
// 16 GB/s on one thread so, and 20 with it).
inline void fetch_ahead(const uint64_t* masks, const uint8_t* values) {
  __builtin_prefetch(masks + 64);
  __builtin_prefetch(values + 2048);
}

// Where a strip's bitmap and nonzeros lie.
struct Strip {
  Strip(const Weight& weight, int64_t strip)
      : masks(weight.masks + strip * weight.tiles()), tiles(weight.tiles()),
        values(weight.values + (weight.kind == Kind::int8 ? 1 : 2) * weight.starts[strip]) {}
  const uint64_t* masks;
  int64_t tiles;
  const uint8_t* values;
};

inline uint16_t bf16_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);  // called for values that are bf16 already
}

class Dot final : public Job {
 public:
  Dot(const Weight& weight, const Columns& columns)
      : weight_(weight), columns_(columns), panels_(columns, {1, 2, 4, 8}, [&](int64_t n, int64_t k) {
          return bf16_bits(columns.x[n * columns.stride + k]);
        }) {}

  // With eight columns of x the sums of a strip fill half of the registers. Sixteen would fill them with those of four
  // rows, and read x twice as often as they multiply: 25 cycles for 32 weights against 22 of two times eight.
  void strips(int64_t first, int64_t last, float* sums) const override {
    for (int64_t strip = first; strip < last; ++strip, sums += strip_rows * columns_.count) {
      for (const auto& panel : panels_.all()) {
        switch (panel.width) {
          case 1: multiply<1>(strip, panel, sums); break;
          case 2: multiply<2>(strip, panel, sums); break;
          case 4: multiply<4>(strip, panel, sums); break;
          default: multiply<8>(strip, panel, sums);
        }
      }
    }
  }

 private:
  template <int width>
  void multiply(int64_t strip, const Panels<uint16_t>::Panel& panel, float* sums) const {
    __m512 upper[width], lower[width];
    for (int i = 0; i < width; ++i) upper[i] = lower[i] = _mm512_setzero_ps();
    Strip at(weight_, strip);
    const uint16_t* x = panel.data;
    for (int64_t tile = 0; tile < at.tiles; ++tile, x += 8 * width) {
      const uint64_t mask = at.masks[tile];
      const auto low = static_cast<uint32_t>(mask);
      const auto rows_0_to_3 = (__m512bh)expanded_16(at.values, low);
      const auto rows_4_to_7 = (__m512bh)expanded_16(at.values + 2 * count_of(low), static_cast<uint32_t>(mask >> 32));
      at.values += 2 * count_of(mask);
      fetch_ahead(at.masks + tile, at.values);
#pragma GCC unroll 8
      for (int i = 0; i < width; ++i) {
        const auto pairs =
            (__m512bh)_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + 8 * i)));
        upper[i] = _mm512_dpbf16_ps(upper[i], rows_0_to_3, pairs);
        lower[i] = _mm512_dpbf16_ps(lower[i], rows_4_to_7, pairs);
      }
    }
    for (int i = 0; i < width && panel.first + i < columns_.count; ++i) {
      add_sixteen(upper[i], 4, sums + strip_rows * (panel.first + i));
      add_sixteen(lower[i], 4, sums + strip_rows * (panel.first + i) + 4);
    }
  }

  const Weight& weight_;
  const Columns& columns_;
  const Panels<uint16_t> panels_;
};

class Wide final : public Job {
 public:
  Wide(const Weight& weight, const Columns& columns)
      : weight_(weight), columns_(columns),
        panels_(columns, {1, 4}, [&](int64_t n, int64_t k) { return columns.x[n * columns.stride + k]; }) {}

  void strips(int64_t first, int64_t last, float* sums) const override {
    for (int64_t strip = first; strip < last; ++strip, sums += strip_rows * columns_.count)
      for (const auto& panel : panels_.all())
        panel.width == 1 ? multiply<1>(strip, panel, sums) : multiply<4>(strip, panel, sums);
  }

 private:
  __m512 widened_16(__m256i halves) const {
    if (weight_.kind == Kind::fp16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }

  template <int width>
  void multiply(int64_t strip, const Panels<float>::Panel& panel, float* sums) const {
    __m512 partial[width][4];
    for (auto& column : partial)
      for (auto& sum : column) sum = _mm512_setzero_ps();
    Strip at(weight_, strip);
    const float* x = panel.data;
    for (int64_t tile = 0; tile < at.tiles; ++tile, x += 8 * width) {
      const uint64_t mask = at.masks[tile];
      const auto low = static_cast<uint32_t>(mask);
      const __m512i upper = expanded_16(at.values, low);
      const __m512i lower = expanded_16(at.values + 2 * count_of(low), static_cast<uint32_t>(mask >> 32));
      at.values += 2 * count_of(mask);
      fetch_ahead(at.masks + tile, at.values);
      const __m512 weights[4] = {
          widened_16(_mm512_castsi512_si256(upper)), widened_16(_mm512_extracti64x4_epi64(upper, 1)),
          widened_16(_mm512_castsi512_si256(lower)), widened_16(_mm512_extracti64x4_epi64(lower, 1))};
#pragma GCC unroll 4
      for (int i = 0; i < width; ++i) {
        const __m512 eight = _mm512_broadcast_f32x8(_mm256_loadu_ps(x + 8 * i));
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q) partial[i][q] = _mm512_fmadd_ps(weights[q], eight, partial[i][q]);
      }
    }
    for (int i = 0; i < width && panel.first + i < columns_.count; ++i)
      for (int q = 0; q < 4; ++q) add_sixteen(partial[i][q], 2, sums + strip_rows * (panel.first + i) + 2 * q);
  }

  const Weight& weight_;
  const Columns& columns_;
  const Panels<float> panels_;
};

// value = scale * rounded, |rounded| <= 32639: 256 * high + low, both of them signed bytes. A column with NaN or an
// infinity gets NaN for its scale.
struct Rounded {
  explicit Rounded(const Columns& columns)
      : values(static_cast<size_t>(columns.count * columns.stride)), sums(static_cast<size_t>(columns.count)) {
    for (int64_t n = 0; n < columns.count; ++n) round_column(columns.x + n * columns.stride, columns.stride, n);
  }

  // Loops without a branch, which a compiler turns into vectors: bits of sizes in the order of the sizes, and a number
  // that is added so that a double's last bits are the rounded value.
  void round_column(const float* x, int64_t length, int64_t n) {
    uint32_t largest_bits = 0;
    for (int64_t k = 0; k < length; ++k) {
      uint32_t bits;
      std::memcpy(&bits, x + k, sizeof bits);
      largest_bits = std::max(largest_bits, bits & 0x7fffffffu);
    }
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    const bool finite = largest_bits < 0x7f800000u;
    scales.push_back(finite ? static_cast<double>(largest) / 32639 : std::numeric_limits<double>::quiet_NaN());
    if (!finite || largest == 0) return;
    const double steps = 32639 / static_cast<double>(largest);
    int16_t* to = &values[static_cast<size_t>(n * length)];
    int64_t sum = 0;
    for (int64_t k = 0; k < length; ++k) {
      const double rounded = static_cast<double>(x[k]) * steps + 0x1.8p52;
      int64_t bits;
      std::memcpy(&bits, &rounded, sizeof bits);
      to[k] = static_cast<int16_t>(bits);
      sum += to[k];
    }
    sums[static_cast<size_t>(n)] = sum;
  }

  std::vector<int16_t> values;
  std::vector<int64_t> sums;  // of each column
  std::vector<double> scales;
};

class Bytes final : public Job {
 public:
  Bytes(const Weight& weight, const Columns& columns)
      : weight_(weight), columns_(columns), x_(columns), panels_(columns, {1, 4, 8}, [&](int64_t n, int64_t k) {
          return x_.values[static_cast<size_t>(n * columns.stride + k)];
        }) {
    for (const auto& panel : panels_.all()) split(panel);
  }

  void strips(int64_t first, int64_t last, float* sums) const override {
    for (int64_t strip = first; strip < last; ++strip, sums += strip_rows * columns_.count) {
      for (size_t p = 0; p < panels_.all().size(); ++p) {
        switch (panels_.all()[p].width) {
          case 1: multiply<1>(strip, p, sums); break;
          case 4: multiply<4>(strip, p, sums); break;
          default: multiply<8>(strip, p, sums);
        }
      }
    }
  }

 private:
  static constexpr int64_t exact_tiles = 4096;  // 255 * 128 * 4 * 4096 is below 2^31

  // Eight highs of a column, then its eight lows.
  void split(const Panels<int16_t>::Panel& panel) {
    const int64_t eights = panel.width * weight_.tiles();
    std::vector<uint8_t> bytes(static_cast<size_t>(16 * eights));
    uint8_t* to = bytes.data();
    for (int64_t eight = 0; eight < eights; ++eight, to += 16) {
      for (int64_t i = 0; i < 8; ++i) {
        const int value = panel.data[8 * eight + i], low = static_cast<int8_t>(value);
        to[i] = static_cast<uint8_t>((value - low) >> 8);
        to[8 + i] = static_cast<uint8_t>(low);
      }
    }
    bytes_.push_back(std::move(bytes));
  }

  // The sum of (weight + 128) * x, less 128 times the sum of x.
  template <int width>
  void multiply(int64_t strip, size_t p, float* sums) const {
    int64_t total[width][strip_rows] = {};
    Strip at(weight_, strip);
    for (int64_t tile = 0; tile < at.tiles; tile += exact_tiles)
      some_tiles<width>(at, tile, std::min(at.tiles, tile + exact_tiles), bytes_[p].data(), total);
    const int64_t first = panels_.all()[p].first;
    for (int i = 0; i < width && first + i < columns_.count; ++i) {
      const auto n = static_cast<size_t>(first + i);
      for (int row = 0; row < strip_rows; ++row)
        sums[strip_rows * n + row] =
            static_cast<float>(static_cast<double>(total[i][row] - 128 * x_.sums[n]) * x_.scales[n]);
    }
  }

  template <int width>
  static void some_tiles(Strip& at, int64_t first, int64_t last, const uint8_t* bytes, int64_t (*total)[strip_rows]) {
    __m512i highs[width], lows[width];
    for (int i = 0; i < width; ++i) highs[i] = lows[i] = _mm512_setzero_si512();
    const uint8_t* x = bytes + 16 * width * first;
#pragma GCC unroll 2
    for (int64_t tile = first; tile < last; ++tile, x += 16 * width) {
      const uint64_t mask = at.masks[tile];
      const __m512i weights = expanded_8(at.values, mask);
      at.values += count_of(mask);
      fetch_ahead(at.masks + tile, at.values);
#pragma GCC unroll 8
      for (int i = 0; i < width; ++i) {
        highs[i] = _mm512_dpbusd_epi32(highs[i], weights, eight_bytes(x + 16 * i));
        lows[i] = _mm512_dpbusd_epi32(lows[i], weights, eight_bytes(x + 16 * i + 8));
      }
    }
    alignas(64) int32_t of_high[16], of_low[16];
    for (int i = 0; i < width; ++i) {
      _mm512_storeu_si512(of_high, highs[i]);
      _mm512_storeu_si512(of_low, lows[i]);
      for (int lane = 0; lane < 16; ++lane) total[i][lane / 2] += 256 * int64_t{of_high[lane]} + of_low[lane];
    }
  }

  static __m512i eight_bytes(const uint8_t* at) {
    int64_t eight;
    std::memcpy(&eight, at, sizeof eight);
    return _mm512_set1_epi64(eight);
  }

  const Weight& weight_;
  const Columns& columns_;
  const Rounded x_;
  const Panels<int16_t> panels_;
  std::vector<std::vector<uint8_t>> bytes_;
};

inline std::unique_ptr<Job> begin_512(const Weight& weight, const Columns& columns, bool has_bf16) {
  if (weight.kind == Kind::int8) return std::make_unique<Bytes>(weight, columns);
  if (weight.kind == Kind::bf16 && columns.is_bf16 && has_bf16) return std::make_unique<Dot>(weight, columns);
  return std::make_unique<Wide>(weight, columns);
}
