// The AVX2 path: a byte of the bitmap chooses a shuffle that spreads up to eight nonzeros over eight lanes.
//
// `lanes` (few columns of x): eight columns of one row are one vector, zeros included, multiplied by eight values of x; each
// row and column of x has its sum of eight partial ones. A nonzero is spread straight into the top of a 32-bit lane,
// where a bf16 is a float32 already. Eight weights take a load, a shuffle from memory and a multiplication, and four
// instructions to find where the next eight begin.
//
// `lists` (many columns of x): where every weight would be multiplied by sixteen columns, zeros are better left out. The
// nonzeros of a row and their columns are listed for some hundred columns of the weight, then each is multiplied by
// its row of x transposed.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "product.hpp"
#include "tables.hpp"

namespace tandem::sparse {
namespace {

#include "panels.hpp"

alignas(64) constexpr auto bf16_lanes = top_of_lanes<2>();
alignas(64) constexpr auto int8_lanes = top_of_lanes<1>();
alignas(64) constexpr auto half_lanes = sixteen_bit_lanes();
alignas(64) constexpr auto listed_columns = kept_columns_by_8();

__m128i load_16(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
__m256i load_32(const void* at) { return _mm256_load_si256(static_cast<const __m256i*>(at)); }
__m128i load_8(const void* at) { return _mm_loadl_epi64(static_cast<const __m128i*>(at)); }

// How nonzeros of a kind become float32: eight spread over the lanes of a byte of the bitmap, whose entry lies at
// byte << entry_bits in its table, or the next eight as they lie. int8 spreads as value * 2^24.
struct Bf16 {
  static constexpr int bytes = 2, entry_bits = 5;
  static constexpr float unit = 1;
  static __m256 spread(const uint8_t* at, size_t entry) {
    const __m256i twice = _mm256_broadcastsi128_si256(load_16(at));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(twice, load_32(bf16_lanes[0].data() + entry)));
  }
  static __m256 next(const uint8_t* at) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(at)), 16));
  }
};

struct Fp16 {
  static constexpr int bytes = 2, entry_bits = 4;
  static constexpr float unit = 1;
  static __m256 spread(const uint8_t* at, size_t entry) {
    return _mm256_cvtph_ps(_mm_shuffle_epi8(load_16(at), load_16(half_lanes[0].data() + entry)));
  }
  static __m256 next(const uint8_t* at) { return _mm256_cvtph_ps(load_16(at)); }
};

struct Int8 {
  static constexpr int bytes = 1, entry_bits = 5;
  static constexpr float unit = 0x1p-24f;
  static __m256 spread(const uint8_t* at, size_t entry) {
    const __m256i twice = _mm256_broadcastq_epi64(load_8(at));
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(twice, load_32(int8_lanes[0].data() + entry)));
  }
  static __m256 next(const uint8_t* at) {
    return _mm256_cvtepi32_ps(_mm256_slli_epi32(_mm256_cvtepi8_epi32(load_8(at)), 24));
  }
};

// The processor's own prefetching ends with a page and begins anew slowly; strips follow one another, so reading on beyond
// the last tile is right, and behind the last strip harmless. A line of masks is asked for once, at every eighth tile.
inline void fetch_ahead(const uint64_t* masks, const uint8_t* values, int64_t tile) {
  if (tile % 8 == 0) _mm_prefetch(reinterpret_cast<const char*>(masks + 64), _MM_HINT_T0);
  _mm_prefetch(reinterpret_cast<const char*>(values + 1024), _MM_HINT_T0);
}

// Keeps the compiler from loading a vector twice, once into each of two multiplications: two loads a cycle are all there are.
inline __m256 in_register(__m256 vector) {
  asm("" : "+x"(vector));
  return vector;
}

constexpr uint64_t rotated(uint64_t bits, int right) { return bits >> (right & 63) | bits << (-right & 63); }

float sum_of(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Rows [first, first + rows) of a strip times a panel of x, of which `count` columns are wanted: rows * width sums stay in
// registers.
template <class Value, int width, int rows>
void multiply_rows(const Weight& weight, int64_t strip, int first, const float* x, int64_t count, float* sums) {
  __m256 partial[rows][width];
  for (auto& row : partial)
    for (auto& sum : row) sum = _mm256_setzero_ps();
  const int64_t tiles = weight.tiles();
  const uint64_t* masks = weight.masks + strip * tiles;
  const uint8_t* values = weight.values + Value::bytes * weight.starts[strip];
  const int shift = 8 * first;
  const uint64_t before = (uint64_t{1} << shift) - 1;
  for (int64_t tile = 0; tile < tiles; ++tile, x += 8 * width) {
    const uint64_t mask = masks[tile];
    fetch_ahead(masks + tile, values, tile);
    const uint8_t* at = values;
    uint64_t rest = mask;
    if constexpr (rows < 8) {
      at += Value::bytes * _mm_popcnt_u64(mask & before);
      values += Value::bytes * _mm_popcnt_u64(mask);
      rest >>= shift;
    }
    __m256 columns[width];
#pragma GCC unroll 8
    for (int n = 0; n < width; ++n) columns[n] = _mm256_loadu_ps(x + 8 * n);
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
      // The byte where its table wants it: a rotation and a mask; as many bits are set as before.
      constexpr size_t byte = size_t{255} << Value::entry_bits;
      const size_t entry = rotated(rest, 8 * row - Value::entry_bits) & byte;
      const __m256 spread = Value::spread(at, entry);
      at += Value::bytes * _mm_popcnt_u64(entry);
#pragma GCC unroll 8
      for (int n = 0; n < width; ++n) partial[row][n] = _mm256_fmadd_ps(spread, columns[n], partial[row][n]);
    }
    if constexpr (rows == 8) values = at;
  }
  for (int row = 0; row < rows; ++row)
    for (int n = 0; n < width && n < count; ++n) sums[8 * n + first + row] = Value::unit * sum_of(partial[row][n]);
}

constexpr int64_t block_tiles = 32, block_columns = 8 * block_tiles;
constexpr int64_t room = block_columns + 16;  // whole vectors are written, and lists are filled up to a multiple of eight

// The nonzeros of eight rows in some tiles: values, and eight times their columns.
struct Lists {
  alignas(32) float values[8][room];
  alignas(32) uint16_t places[8][room];
  int64_t lengths[8];
};

// Lists tiles [first, last); returns where the nonzeros of the next tile begin.
template <class Value>
const uint8_t* list(const uint64_t* masks, int64_t tiles, const uint8_t* at, Lists& lists) {
  int64_t lengths[8] = {};
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const uint64_t mask = masks[tile];
    const __m128i column = _mm_set1_epi16(static_cast<int16_t>(64 * tile));
#pragma GCC unroll 8
    for (int row = 0; row < 8; ++row) {
      const size_t byte = mask >> (8 * row) & 255;
      const __m128i places = _mm_add_epi16(column, load_16(listed_columns[byte].data()));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(&lists.places[row][lengths[row]]), places);
      _mm256_storeu_ps(&lists.values[row][lengths[row]], Value::next(at));
      const auto kept = _mm_popcnt_u64(byte);
      lengths[row] += kept;
      at += Value::bytes * kept;
    }
  }
  for (int row = 0; row < 8; ++row) {  // what is listed beyond the end is zero times the block's first column
    _mm256_storeu_ps(&lists.values[row][lengths[row]], _mm256_setzero_ps());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(&lists.places[row][lengths[row]]), _mm_setzero_si128());
    lists.lengths[row] = lengths[row];
  }
  return at;
}

// Adds one row's listed nonzeros times 8 * vectors columns of x to `sums`. Eight sums at a time, whatever the width, since
// one has to wait four cycles for itself.
template <int vectors>
void add_list(const float* values, const uint16_t* places, int64_t length, const float* x, float* sums) {
  constexpr int turns = 8 / vectors, scale = 4 * vectors;
  __m256 partial[turns][vectors];
  for (auto& turn : partial)
    for (auto& sum : turn) sum = _mm256_setzero_ps();
  const auto* bytes = reinterpret_cast<const char*>(x);
  for (int64_t i = 0; i < length; i += turns) {
#pragma GCC unroll 8
    for (int turn = 0; turn < turns; ++turn) {
      const __m256 value = _mm256_broadcast_ss(values + i + turn);
      const auto* row = reinterpret_cast<const float*>(bytes + scale * size_t{places[i + turn]});
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v)
        partial[turn][v] = _mm256_fmadd_ps(value, _mm256_load_ps(row + 8 * v), partial[turn][v]);
    }
  }
  for (int v = 0; v < vectors; ++v) {
    for (int half = turns / 2; half > 0; half /= 2)
      for (int turn = 0; turn < half; ++turn) partial[turn][v] = _mm256_add_ps(partial[turn][v], partial[turn + half][v]);
    _mm256_storeu_ps(sums + 8 * v, _mm256_add_ps(_mm256_loadu_ps(sums + 8 * v), partial[0][v]));
  }
}

struct AlignedFloats {
  explicit AlignedFloats(int64_t count)
      : data(static_cast<float*>(::operator new(sizeof(float) * static_cast<size_t>(count + 8), std::align_val_t{64}))) {}
  ~AlignedFloats() { ::operator delete(data, std::align_val_t{64}); }
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;
  float* data;
};

// Panels of four columns, two strips and some tiles at a time: weights are spread into scratch once, then each is multiplied
// by all panels, two rows by four columns in registers. Scratch, this part of x and the sums stay in the first cache.
class Scratch {
 public:
  static constexpr int strips = 2, rows = 8 * strips;
  static constexpr int64_t tiles = 16, columns = 8 * tiles;

  explicit Scratch(size_t panels) : sums_(panels * rows * 4 * 8) {}

  float* weights() { return weights_; }

  // Adds the product of the first `wide` tiles in scratch with a panel's, of which `x` is the first.
  void multiply(size_t panel, int64_t wide, const float* x) {
    float* sums = sums_.data() + panel * rows * 4 * 8;
    for (int row = 0; row < rows; row += 2, sums += 2 * 4 * 8) two_rows(weights_ + row * columns, wide, x, sums);
  }

  // The sum of a row of scratch and a column of a panel.
  float sum(size_t panel, int row, int column) const {
    return sum_of(_mm256_loadu_ps(sums_.data() + ((panel * rows + static_cast<size_t>(row)) * 4 + static_cast<size_t>(column)) * 8));
  }

 private:
  static void two_rows(const float* weights, int64_t wide, const float* x, float* sums) {
    __m256 partial[2][4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) partial[i / 4][i % 4] = _mm256_loadu_ps(sums + 8 * i);
    for (int64_t tile = 0; tile < wide; ++tile, weights += 8, x += 4 * 8) {
      const __m256 upper = _mm256_loadu_ps(weights), lower = _mm256_loadu_ps(weights + columns);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) {
        const __m256 eight = in_register(_mm256_loadu_ps(x + 8 * n));
        partial[0][n] = _mm256_fmadd_ps(upper, eight, partial[0][n]);
        partial[1][n] = _mm256_fmadd_ps(lower, eight, partial[1][n]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(sums + 8 * i, partial[i / 4][i % 4]);
  }

  alignas(32) float weights_[rows * columns];
  std::vector<float> sums_;
};

// Spreads tiles of one strip into rows `stride` floats apart; returns where the next tile's nonzeros begin.
template <class Value>
const uint8_t* spread_tiles(const uint64_t* masks, int64_t tiles, const uint8_t* at, float* to, int64_t stride) {
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const uint64_t mask = masks[tile];
    fetch_ahead(masks + tile, at, tile);
#pragma GCC unroll 8
    for (int row = 0; row < 8; ++row) {
      constexpr size_t byte = size_t{255} << Value::entry_bits;
      const size_t entry = rotated(mask, 8 * row - Value::entry_bits) & byte;
      _mm256_storeu_ps(to + row * stride + 8 * tile, Value::spread(at, entry));
      at += Value::bytes * _mm_popcnt_u64(entry);
    }
  }
  return at;
}

template <class Value>
class LanesJob final : public Job {
 public:
  LanesJob(const Weight& weight, const Columns& columns)
      : weight_(weight), columns_(columns),
        panels_(columns, {1, 2, 4}, [&](int64_t n, int64_t k, float* to) {
          std::memcpy(to, columns.x + n * columns.stride + k, 8 * sizeof *to);
        }) {
    for (const auto& panel : panels_.all()) fours_ += panel.width == 4;  // they come first
  }

  void strips(int64_t first, int64_t last, float* sums) const override {
    for (int64_t strip = first; fours_ > 0 && strip < last; strip += Scratch::strips)
      by_scratch(strip, std::min(last - strip, int64_t{Scratch::strips}), sums + (strip - first) * 8 * columns_.count);
    for (int64_t strip = first; strip < last; ++strip, sums += 8 * columns_.count) {
      for (size_t p = fours_; p < panels_.all().size(); ++p) {
        const auto& panel = panels_.all()[p];
        panel.width == 1 ? multiply<1, 8>(strip, panel, sums) : multiply<2, 4>(strip, panel, sums);
      }
    }
  }

 private:
  template <int width, int rows>
  void multiply(int64_t strip, const Panels<float>::Panel& panel, float* sums) const {
    for (int first = 0; first < 8; first += rows)
      multiply_rows<Value, width, rows>(weight_, strip, first, panel.data, columns_.count - panel.first,
                                        sums + 8 * panel.first);
  }

  void by_scratch(int64_t first, int64_t count, float* sums) const {
    Scratch scratch(fours_);
    const int64_t tiles = weight_.tiles();
    const uint8_t* at[Scratch::strips] = {};
    for (int64_t s = 0; s < count; ++s) at[s] = weight_.values + Value::bytes * weight_.starts[first + s];
    if (count < Scratch::strips)
      std::fill(scratch.weights() + 8 * count * Scratch::columns, scratch.weights() + Scratch::rows * Scratch::columns, 0.0f);
    for (int64_t tile = 0; tile < tiles; tile += Scratch::tiles) {
      const int64_t wide = std::min(Scratch::tiles, tiles - tile);
      for (int64_t s = 0; s < count; ++s)
        at[s] = spread_tiles<Value>(weight_.masks + (first + s) * tiles + tile, wide, at[s],
                                    scratch.weights() + 8 * s * Scratch::columns, Scratch::columns);
      for (size_t p = 0; p < fours_; ++p) scratch.multiply(p, wide, panels_.all()[p].data + 4 * 8 * tile);
    }
    for (int64_t s = 0; s < count; ++s)
      for (int64_t n = 0; n < std::min<int64_t>(columns_.count, 4 * static_cast<int64_t>(fours_)); ++n)
        for (int row = 0; row < 8; ++row)
          sums[(s * columns_.count + n) * 8 + row] =
              Value::unit * scratch.sum(static_cast<size_t>(n / 4), static_cast<int>(8 * s) + row, static_cast<int>(n % 4));
  }

  const Weight& weight_;
  const Columns& columns_;
  const Panels<float> panels_;
  size_t fours_ = 0;
};

// x is transposed by panels of sixteen columns, the last of eight where that is enough.
template <class Value>
class ListsJob final : public Job {
 public:
  ListsJob(const Weight& weight, const Columns& columns)
      : weight_(weight), columns_(columns), padded_((columns.count + 7) / 8 * 8), panels_(padded_ * columns.stride) {
    for (int64_t n = 0; n < padded_; ++n) {
      float* to = panels_.data + panel_at(n / 16 * 16, 0) + n % 16;
      const int64_t width = width_of(n / 16 * 16);
      for (int64_t k = 0; k < columns.stride; ++k) to[k * width] = n < columns.count ? columns.x[n * columns.stride + k] : 0;
    }
  }

  void strips(int64_t first, int64_t last, float* sums) const override {
    thread_local const std::unique_ptr<Lists> lists(new Lists);  // too large for a thread's own storage
    thread_local std::vector<float> by_row;  // [strip][row][column of x]
    thread_local std::vector<const uint8_t*> at;
    by_row.assign(static_cast<size_t>((last - first) * 8 * padded_), 0);
    at.resize(static_cast<size_t>(last - first));
    for (int64_t s = 0; s < last - first; ++s) at[s] = weight_.values + Value::bytes * weight_.starts[first + s];
    const int64_t tiles = weight_.tiles();
    for (int64_t tile = 0; tile < tiles; tile += block_tiles) {
      for (int64_t s = 0; s < last - first; ++s) {
        const uint64_t* masks = weight_.masks + (first + s) * tiles + tile;
        at[s] = list<Value>(masks, std::min(block_tiles, tiles - tile), at[s], *lists);
        add_lists(*lists, 8 * tile, &by_row[static_cast<size_t>(s * 8 * padded_)]);
      }
    }
    for (int64_t s = 0; s < last - first; ++s)
      for (int64_t n = 0; n < columns_.count; ++n)
        for (int64_t row = 0; row < 8; ++row)
          sums[(s * columns_.count + n) * 8 + row] = by_row[static_cast<size_t>((s * 8 + row) * padded_ + n)] * scale;
  }

 private:
  static constexpr float scale = Value::unit;

  int64_t width_of(int64_t panel) const { return std::min<int64_t>(16, padded_ - panel); }
  int64_t panel_at(int64_t panel, int64_t k) const { return panel * columns_.stride + k * width_of(panel); }

  void add_lists(const Lists& lists, int64_t k, float* by_row) const {
    for (int64_t panel = 0; panel < padded_; panel += 16) {
      const float* x = panels_.data + panel_at(panel, k);
      for (int row = 0; row < 8; ++row) {
        float* sums = by_row + row * padded_ + panel;
        if (width_of(panel) == 16)
          add_list<2>(lists.values[row], lists.places[row], lists.lengths[row], x, sums);
        else
          add_list<1>(lists.values[row], lists.places[row], lists.lengths[row], x, sums);
      }
    }
  }

  const Weight& weight_;
  const Columns& columns_;
  const int64_t padded_;
  AlignedFloats panels_;
};

template <class Value>
void decode_strip(const Weight& weight, int64_t strip, float* dense, int64_t stride) {
  const int64_t tiles = weight.tiles();
  const uint8_t* at = weight.values + Value::bytes * weight.starts[strip];
  spread_tiles<Value>(weight.masks + strip * tiles, tiles, at, dense, stride);
  if (weight.scales == nullptr) return;
  for (int64_t row = 0; row < 8 && 8 * strip + row < weight.rows; ++row) {
    const __m256 scale = _mm256_set1_ps(Value::unit * weight.scales[8 * strip + row]);
    float* to = dense + row * stride;
    for (int64_t k = 0; k < 8 * tiles; k += 8) _mm256_storeu_ps(to + k, _mm256_mul_ps(scale, _mm256_loadu_ps(to + k)));
  }
}

template <class Value>
std::unique_ptr<Job> begin(const Weight& weight, const Columns& columns, Way way) {
  if (way == Way::automatic) way = columns.count > 8 ? Way::lists : Way::lanes;
  if (way == Way::lists) return std::make_unique<ListsJob<Value>>(weight, columns);
  return std::make_unique<LanesJob<Value>>(weight, columns);
}

}  // namespace

std::unique_ptr<Job> begin_avx2(const Weight& weight, const Columns& columns, Way way) {
  switch (weight.kind) {
    case Kind::bf16: return begin<Bf16>(weight, columns, way);
    case Kind::fp16: return begin<Fp16>(weight, columns, way);
    default: return begin<Int8>(weight, columns, way);
  }
}

void decode_avx2(const Weight& weight, int64_t strip, float* dense, int64_t stride) {
  switch (weight.kind) {
    case Kind::bf16: return decode_strip<Bf16>(weight, strip, dense, stride);
    case Kind::fp16: return decode_strip<Fp16>(weight, strip, dense, stride);
    default: return decode_strip<Int8>(weight, strip, dense, stride);
  }
}

}  // namespace tandem::sparse
