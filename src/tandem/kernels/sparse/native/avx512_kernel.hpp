// AVX-512 with VBMI2 and VNNI: a whole vector of weights is expanded by one instruction, so that a tile of the bitmap takes
// two of them in 16 bits and one in 8.
//
// This file is compiled twice: by avx512.cpp with the processor's intrinsics, and by avx512_emulated.cpp with
// emulated_intrinsics.hpp, which plays them one lane at a time on any machine, so that this code is tested where no
// such processor is. It includes no intrinsics by itself and is included inside a namespace.
//
// `Spread` multiplies weights of 16 bits: bf16 by bf16 as `Dots` (vdpbf16ps) where that is asked for, bf16 by float32 as `Pairs`,
// fp16 by float32 as `Halves`. `Bytes` multiplies int8 weights: a tile is one vector; x is rounded to 16 bits of its column's
// largest value and goes as two bytes, so that vpdpbusd does it in two instructions with an error far below the weights'.
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

// Half a tile of 16-bit weights each.
struct HalfTiles { __m512i rows_0_to_3, rows_4_to_7; };

// Walks through a strip's bitmap and nonzeros.
struct Strip {
  Strip(const Weight& weight, int64_t strip)
      : masks(weight.masks + strip * weight.tiles()), tiles(weight.tiles()),
        values(weight.values + (weight.kind == Kind::int8 ? 1 : 2) * weight.starts[strip]) {}

  HalfTiles next_16() {
    const uint64_t mask = *masks++;
    const auto low = static_cast<uint32_t>(mask);
    const HalfTiles both{expanded_16(values, low),
                         expanded_16(values + 2 * count_of(low), static_cast<uint32_t>(mask >> 32))};
    values += 2 * count_of(mask);
    fetch_ahead(masks, values);
    return both;
  }

  __m512i next_8() {
    const uint64_t mask = *masks++;
    const __m512i weights = expanded_8(values, mask);
    values += count_of(mask);
    fetch_ahead(masks, values);
    return weights;
  }

  const uint64_t* masks;
  int64_t tiles;
  const uint8_t* values;
};

// How a tile of 16-bit weights and x lie in vectors, one of the three below: a column of x has `sums` vectors of partial sums, each
// of `rows` rows; as many columns as one of `widths` are multiplied at once.

// bf16 times bf16, pairs of columns at once.
struct Dots {
  using X = uint16_t;
  struct Tile { __m512bh rows_0_to_3, rows_4_to_7; };
  static constexpr int sums = 2, rows = 4;
  static constexpr std::initializer_list<int> widths{1, 2, 3, 4, 6, 8};

  static void lay(const float* eight, X* to) {
    for (int i = 0; i < 8; ++i) {
      uint32_t bits;
      std::memcpy(&bits, eight + i, sizeof bits);
      to[i] = static_cast<uint16_t>(bits >> 16);  // x is bf16 already
    }
  }

  static Tile next(Strip& at) {
    const HalfTiles both = at.next_16();
    return {(__m512bh)both.rows_0_to_3, (__m512bh)both.rows_4_to_7};
  }

  static void add(const Tile& tile, const X* x, __m512* to) {
    const auto pairs = (__m512bh)_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    to[0] = _mm512_dpbf16_ps(to[0], tile.rows_0_to_3, pairs);
    to[1] = _mm512_dpbf16_ps(to[1], tile.rows_4_to_7, pairs);
  }
};

// bf16 times float32: a lane of 32 bits holds an even column below and an odd one above, of which a shift and a mask make
// float32. x lies in that order, too.
struct Pairs {
  using X = float;
  struct Tile { __m512 upper_even, upper_odd, lower_even, lower_odd; };
  static constexpr int sums = 2, rows = 4;
  static constexpr std::initializer_list<int> widths{1, 2, 3, 4, 6, 8};

  static void lay(const float* eight, X* to) {
    for (int i = 0; i < 4; ++i) {
      to[i] = eight[2 * i];
      to[4 + i] = eight[2 * i + 1];
    }
  }

  static Tile next(Strip& at) {
    const HalfTiles both = at.next_16();
    return {even(both.rows_0_to_3), odd(both.rows_0_to_3), even(both.rows_4_to_7), odd(both.rows_4_to_7)};
  }

  static void add(const Tile& tile, const X* x, __m512* to) {
    const __m512 evens = _mm512_broadcast_f32x4(_mm_loadu_ps(x)), odds = _mm512_broadcast_f32x4(_mm_loadu_ps(x + 4));
    to[0] = _mm512_fmadd_ps(tile.upper_even, evens, to[0]);
    to[1] = _mm512_fmadd_ps(tile.lower_even, evens, to[1]);
    to[0] = _mm512_fmadd_ps(tile.upper_odd, odds, to[0]);
    to[1] = _mm512_fmadd_ps(tile.lower_odd, odds, to[1]);
  }

 private:
  static __m512 even(const __m512i& pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
  static __m512 odd(const __m512i& pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(INT32_MIN >> 15)));
  }
};

// fp16 times float32.
struct Halves {
  using X = float;
  struct Tile { __m512 rows_0_1, rows_2_3, rows_4_5, rows_6_7; };
  static constexpr int sums = 4, rows = 2;
  static constexpr std::initializer_list<int> widths{1, 2, 3, 4};

  static void lay(const float* eight, X* to) { std::memcpy(to, eight, 8 * sizeof *to); }

  static Tile next(Strip& at) {
    const HalfTiles both = at.next_16();
    return {_mm512_cvtph_ps(_mm512_castsi512_si256(both.rows_0_to_3)),
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64(both.rows_0_to_3, 1)),
            _mm512_cvtph_ps(_mm512_castsi512_si256(both.rows_4_to_7)),
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64(both.rows_4_to_7, 1))};
  }

  static void add(const Tile& tile, const X* x, __m512* to) {
    const __m512 eight = _mm512_broadcast_f32x8(_mm256_loadu_ps(x));
    to[0] = _mm512_fmadd_ps(tile.rows_0_1, eight, to[0]);
    to[1] = _mm512_fmadd_ps(tile.rows_2_3, eight, to[1]);
    to[2] = _mm512_fmadd_ps(tile.rows_4_5, eight, to[2]);
    to[3] = _mm512_fmadd_ps(tile.rows_6_7, eight, to[3]);
  }
};

// Where x has more columns than registers hold sums of, some tiles at a time are spread into the first cache and read from
// there for each panel of x.
template <class Lanes>
class Spread final : public Job {
 public:
  Spread(const Weight& weight, const Columns& columns)
      : weight_(weight), columns_(columns), panels_(columns, Lanes::widths, [&](int64_t n, int64_t k, typename Lanes::X* to) {
          Lanes::lay(columns.x + n * columns.stride + k, to);
        }) {}

  void strips(int64_t first, int64_t last, float* sums) const override {
    std::vector<Sums> partial(panels_.all().size());
    for (int64_t strip = first; strip < last; ++strip, sums += strip_rows * columns_.count) {
      std::fill(partial.begin(), partial.end(), Sums{});
      if (partial.size() == 1)
        in_registers(strip, partial.front());
      else
        in_blocks(strip, partial);
      for (size_t p = 0; p < partial.size(); ++p) {
        const auto& panel = panels_.all()[p];
        for (int i = 0; i < panel.width && panel.first + i < columns_.count; ++i)
          for (int part = 0; part < Lanes::sums; ++part)
            add_sixteen(partial[p].of[i][part], Lanes::rows, sums + strip_rows * (panel.first + i) + Lanes::rows * part);
      }
    }
  }

 private:
  static constexpr int64_t block = 32;  // tiles: 8 KB of float32, beside x in the first cache
  static constexpr int widest = (Lanes::widths.end() - 1)[0];
  struct Sums { __m512 of[widest][Lanes::sums]; };

  void in_registers(int64_t strip, Sums& partial) const {
    Strip at(weight_, strip);
    add(panels_.all().front(), 0, at.tiles, [&](int64_t) { return Lanes::next(at); }, partial);
  }

  void in_blocks(int64_t strip, std::vector<Sums>& partial) const {
    typename Lanes::Tile spread[block];
    Strip at(weight_, strip);
    for (int64_t first = 0; first < at.tiles; first += block) {
      const int64_t last = std::min(at.tiles, first + block);
      for (int64_t tile = first; tile < last; ++tile) spread[tile - first] = Lanes::next(at);
      for (size_t p = 0; p < panels_.all().size(); ++p)
        add(panels_.all()[p], first, last, [&](int64_t tile) { return spread[tile - first]; }, partial[p]);
    }
  }

  using Panel = typename Panels<typename Lanes::X>::Panel;

  template <class Tiles>
  static void add(const Panel& panel, int64_t first, int64_t last, Tiles tiles, Sums& partial) {
    switch (panel.width) {
      case 1: add_columns<1>(panel, first, last, tiles, partial); break;
      case 2: add_columns<2>(panel, first, last, tiles, partial); break;
      case 3: add_columns<3>(panel, first, last, tiles, partial); break;
      case 4: add_columns<4>(panel, first, last, tiles, partial); break;
      case 6: add_columns<std::min(6, widest)>(panel, first, last, tiles, partial); break;
      default: add_columns<widest>(panel, first, last, tiles, partial);
    }
  }

  template <int width, class Tiles>
  static void add_columns(const Panel& panel, int64_t first, int64_t last, Tiles tiles, Sums& partial) {
    __m512 sums[width][Lanes::sums];
    for (int i = 0; i < width; ++i)
      for (int part = 0; part < Lanes::sums; ++part) sums[i][part] = partial.of[i][part];
    const auto* x = panel.data + 8 * width * first;
    for (int64_t tile = first; tile < last; ++tile, x += 8 * width) {
      const auto weights = tiles(tile);
#pragma GCC unroll 8
      for (int i = 0; i < width; ++i) Lanes::add(weights, x + 8 * i, sums[i]);
    }
    for (int i = 0; i < width; ++i)
      for (int part = 0; part < Lanes::sums; ++part) partial.of[i][part] = sums[i][part];
  }

  const Weight& weight_;
  const Columns& columns_;
  const Panels<typename Lanes::X> panels_;
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
      : weight_(weight), columns_(columns), x_(columns), panels_(columns, {1, 4, 8}, [&](int64_t n, int64_t k, int16_t* to) {
          std::memcpy(to, &x_.values[static_cast<size_t>(n * columns.stride + k)], 8 * sizeof *to);
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
    constexpr int turns = width == 1 ? 2 : 1;  // tiles whose sums do not wait for one another
    __m512i highs[turns][width], lows[turns][width];
    for (int turn = 0; turn < turns; ++turn)
      for (int i = 0; i < width; ++i) highs[turn][i] = lows[turn][i] = _mm512_setzero_si512();
    const uint8_t* x = bytes + 16 * width * first;
    const auto add = [&](const uint8_t* own, __m512i (&high)[width], __m512i (&low)[width]) {
      const __m512i weights = at.next_8();
#pragma GCC unroll 8
      for (int i = 0; i < width; ++i) {
        high[i] = _mm512_dpbusd_epi32(high[i], weights, eight_bytes(own + 16 * i));
        low[i] = _mm512_dpbusd_epi32(low[i], weights, eight_bytes(own + 16 * i + 8));
      }
    };
    int64_t tile = first;
    for (; turns == 2 && tile + 2 <= last; tile += 2, x += 32 * width) {
      add(x, highs[0], lows[0]);
      add(x + 16 * width, highs[turns - 1], lows[turns - 1]);
    }
#pragma GCC unroll 2
    for (; tile < last; ++tile, x += 16 * width) add(x, highs[0], lows[0]);
    alignas(64) int32_t of_high[16], of_low[16];
    for (int turn = 0; turn < turns; ++turn) {
      for (int i = 0; i < width; ++i) {
        _mm512_storeu_si512(of_high, highs[turn][i]);
        _mm512_storeu_si512(of_low, lows[turn][i]);
        for (int lane = 0; lane < 16; ++lane) total[i][lane / 2] += 256 * int64_t{of_high[lane]} + of_low[lane];
      }
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

inline std::unique_ptr<Job> begin_512(const Weight& weight, const Columns& columns, bool by_dots) {
  if (weight.kind == Kind::int8) return std::make_unique<Bytes>(weight, columns);
  if (weight.kind == Kind::fp16) return std::make_unique<Spread<Halves>>(weight, columns);
  if (by_dots && columns.is_bf16) return std::make_unique<Spread<Dots>>(weight, columns);
  return std::make_unique<Spread<Pairs>>(weight, columns);
}
