#include <algorithm>
#include <cmath>
#include <cstring>

#include "llama_step.hpp"
#include "team.hpp"
#include "vectors_avx2.hpp"

namespace tandem::chat {
namespace {

// A product's part: outputs [first, last) of all rows, y += where `add`. `first` is a multiple of 4.
struct Product {
  const float* x;
  int64_t rows;
  int64_t inputs;
  int64_t x_stride;
  Dense dense;
  int64_t weight_stride;
  float* y;
  int64_t y_stride;
  bool add;
};

void store(const Product& p, int64_t row, int64_t output, int64_t count, __m128 values) {
  float four[4];
  _mm_storeu_ps(four, values);
  float* y = p.y + row * p.y_stride + output;
  for (int64_t m = 0; m < count; ++m) {
    const float value = p.dense.bias == nullptr ? four[m] : four[m] + p.dense.bias[output + m];
    y[m] = p.add ? y[m] + value : value;
  }
}

template <int ROWS>
void rows_by_four(const Product& p, int64_t row, int64_t output, const float* weight, int64_t weight_stride,
                  int64_t count, Ahead ahead) {
  __m128 sums[ROWS];
  dots<ROWS>(p.x + row * p.x_stride, p.x_stride, weight, weight_stride, p.inputs, ahead, sums);
  for (int r = 0; r < ROWS; ++r) store(p, row + r, output, count, sums[r]);
}

// The next outputs' weights, of which each group of rows brings its part into the cache while it is computed.
class Next {
 public:
  Next(const float* weights, int64_t count, int64_t rows) : weights_(weights), count_(count), rows_(rows) {}

  Ahead part(int64_t rows) {
    const float* first = weights_ + count_ * done_rows_ / rows_;
    done_rows_ += rows;
    return {first, weights_ + count_ * done_rows_ / rows_};
  }

 private:
  const float* weights_;
  int64_t count_;
  int64_t rows_;
  int64_t done_rows_ = 0;
};

void compute(const Product& p, int64_t first, int64_t last) {
  for (int64_t output = first; output < last; output += 4) {
    const float* weight = p.dense.weight + output * p.weight_stride;
    const int64_t count = std::min<int64_t>(4, last - output);
    // Fewer than four outputs: the first one again in place of those that are not there.
    const int64_t stride = count == 4 ? p.weight_stride : 0;
    if (count < 4) {
      for (int64_t m = 0; m < count; ++m) {
        for (int64_t row = 0; row < p.rows; ++row) {
          rows_by_four<1>(p, row, output + m, weight + m * p.weight_stride, stride, 1, {});
        }
      }
      continue;
    }
    Next next(weight + 4 * stride, output + 8 <= last ? 4 * stride : 0, p.rows);
    int64_t row = 0;
    // Three rows by four outputs fill twelve of sixteen registers; four rows left are two twice.
    for (; p.rows - row >= 3 && p.rows - row != 4; row += 3) {
      rows_by_four<3>(p, row, output, weight, stride, 4, next.part(3));
    }
    for (; p.rows - row >= 2; row += 2) rows_by_four<2>(p, row, output, weight, stride, 4, next.part(2));
    if (row < p.rows) rows_by_four<1>(p, row, output, weight, stride, 4, next.part(1));
  }
}

// How outputs are handed out to threads: in pieces of a multiple of 4, about four for each thread.
template <class Work>
void by_outputs(int threads, int64_t outputs, const Work& work) {
  const int64_t wanted = threads == 1 ? 1 : int64_t{4} * threads;
  const int64_t piece = std::max<int64_t>(16, (outputs + wanted - 1) / wanted + 3) / 4 * 4;
  tandem::sparse::share_out(threads, (outputs + piece - 1) / piece, [&](int64_t index) {
    work(index * piece, std::min(outputs, (index + 1) * piece));
  });
}

void rms_norm(const float* x, const float* weight, int64_t width, float eps, float* y) {
  __m256 squares = _mm256_setzero_ps();
  int64_t e = 0;
  for (; e + 8 <= width; e += 8) {
    const __m256 v = _mm256_loadu_ps(x + e);
    squares = _mm256_fmadd_ps(v, v, squares);
  }
  float sum = sum_of(squares);
  for (; e < width; ++e) sum += x[e] * x[e];
  const float factor = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
  for (e = 0; e < width; ++e) y[e] = weight[e] * (x[e] * factor);
}

void rotate(const float* x, const float* cosines, const float* sines, int64_t size, float* y) {
  const int64_t half = size / 2;
  for (int64_t d = 0; d < half; ++d) {
    y[d] = x[d] * cosines[d] - x[half + d] * sines[d];
    y[half + d] = x[half + d] * cosines[half + d] + x[d] * sines[d];
  }
}

// Scores to weights that sum to one.
void softmax(float* scores, int64_t count, float scale) {
  float top = -INFINITY;
  for (int64_t t = 0; t < count; ++t) {
    scores[t] *= scale;
    top = std::max(top, scores[t]);
  }
  const __m256 tops = _mm256_set1_ps(top);
  __m256 sums = _mm256_setzero_ps();
  int64_t t = 0;
  for (; t + 8 <= count; t += 8) {
    const __m256 e = exp_of(_mm256_sub_ps(_mm256_loadu_ps(scores + t), tops));
    _mm256_storeu_ps(scores + t, e);
    sums = _mm256_add_ps(sums, e);
  }
  if (t < count) {
    const __m256i left = lanes(count - t);
    __m256 e = exp_of(_mm256_sub_ps(_mm256_maskload_ps(scores + t, left), tops));
    e = _mm256_and_ps(e, _mm256_castsi256_ps(left));
    _mm256_maskstore_ps(scores + t, left, e);
    sums = _mm256_add_ps(sums, e);
  }
  const float factor = 1.0f / sum_of(sums);
  for (t = 0; t < count; ++t) scores[t] *= factor;
}

// out [D] = sum over t of weights [T] values [T, D].
void weighted_sum(const float* weights, const float* values, int64_t count, int64_t size, float* out) {
  int64_t d = 0;
  for (; d + 32 <= size; d += 32) {
    __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t t = 0; t < count; ++t) {
      const __m256 w = _mm256_set1_ps(weights[t]);
      for (int i = 0; i < 4; ++i) {
        sums[i] = _mm256_fmadd_ps(w, _mm256_loadu_ps(values + t * size + d + 8 * i), sums[i]);
      }
    }
    for (int i = 0; i < 4; ++i) _mm256_storeu_ps(out + d + 8 * i, sums[i]);
  }
  for (; d < size; d += 8) {
    const __m256i left = lanes(size - d);
    __m256 sum = _mm256_setzero_ps();
    for (int64_t t = 0; t < count; ++t) {
      sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[t]), _mm256_maskload_ps(values + t * size + d, left), sum);
    }
    _mm256_maskstore_ps(out + d, left, sum);
  }
}

// The step's numbers on their way through a layer.
struct Work {
  std::vector<float> x, normed, qkv, seen, gated;
};

class Decoding {
 public:
  Decoding(const Model& model, const Step& step, int threads)
      : model_(model), shape_(model.shape), step_(step), threads_(threads) {
    const int64_t n = step.rows, heads = shape_.queries + 2 * shape_.keys;
    work_.x.resize(n * shape_.width);
    work_.normed.resize(n * shape_.width);
    work_.qkv.resize(n * heads * shape_.size);
    work_.seen.resize(n * shape_.queries * shape_.size);
    work_.gated.resize(n * 2 * shape_.mlp_width);
  }

  void run(float* logits) {
    const int64_t width = shape_.width;
    for (int64_t row = 0; row < step_.rows; ++row) {
      std::memcpy(&work_.x[row * width], model_.embedding + step_.tokens[row] * width, width * sizeof(float));
    }
    for (size_t index = 0; index < model_.layers.size(); ++index) {
      const Layer& layer = model_.layers[index];
      normalise(layer.norm);
      const int64_t outputs = (shape_.queries + 2 * shape_.keys) * shape_.size;
      multiply(work_.normed.data(), width, layer.qkv, outputs, work_.qkv.data(), outputs, false);
      attend(static_cast<int64_t>(index));
      multiply(work_.seen.data(), shape_.queries * shape_.size, layer.out, width, work_.x.data(), width, true);
      normalise(layer.mlp_norm);
      gate(layer.gate_up);
      through_down(layer.down);
    }
    normalise(model_.norm);
    multiply(work_.normed.data(), width, model_.head, shape_.vocabulary, logits, shape_.vocabulary, false);
  }

 private:
  void normalise(const float* weight) {
    for (int64_t row = 0; row < step_.rows; ++row) {
      rms_norm(&work_.x[row * shape_.width], weight, shape_.width, shape_.eps, &work_.normed[row * shape_.width]);
    }
  }

  void multiply(const float* x, int64_t inputs, Dense dense, int64_t outputs, float* y, int64_t y_stride, bool add) {
    const Product p{x, step_.rows, inputs, inputs, dense, inputs, y, y_stride, add};
    by_outputs(threads_, outputs, [&](int64_t first, int64_t last) { compute(p, first, last); });
  }

  // One row's heads of queries that share a head of keys: turned, written to the cache, and seen.
  void attend(int64_t layer) {
    const int64_t keys = shape_.keys;
    tandem::sparse::share_out(threads_, step_.rows, [&](int64_t row) {
      thread_local std::vector<float> turned, scores;
      const int64_t group = shape_.queries / keys;
      turned.resize(group * shape_.size);
      scores.resize(group * step_.capacity);
      for (int64_t head = 0; head < keys; ++head) attend_head(layer, row, head, turned.data(), scores.data());
    });
  }

  void attend_head(int64_t layer, int64_t row, int64_t head, float* turned, float* scores) {
    const int64_t size = shape_.size, keys = shape_.keys, group = shape_.queries / keys;
    const int64_t position = step_.positions[row], count = position + 1, capacity = step_.capacity;
    const float* qkv = &work_.qkv[row * (shape_.queries + 2 * keys) * size];
    const float* cosines = model_.cosines + position * size;
    const float* sines = model_.sines + position * (size / 2);
    float* cached_keys = step_.cache + (((layer * 2) * step_.slots + row) * keys + head) * capacity * size;
    float* cached_values = step_.cache + (((layer * 2 + 1) * step_.slots + row) * keys + head) * capacity * size;
    for (int64_t g = 0; g < group; ++g) rotate(qkv + (head * group + g) * size, cosines, sines, size, turned + g * size);
    rotate(qkv + (shape_.queries + head) * size, cosines, sines, size, cached_keys + position * size);
    std::memcpy(cached_values + position * size, qkv + (shape_.queries + keys + head) * size, size * sizeof(float));
    compute({turned, group, size, size, {cached_keys, nullptr}, size, scores, capacity, false}, 0, count);
    float* seen = &work_.seen[(row * shape_.queries + head * group) * size];
    for (int64_t g = 0; g < group; ++g) {
      softmax(scores + g * capacity, count, shape_.scale);
      weighted_sum(scores + g * capacity, cached_values, count, size, seen + g * size);
    }
  }

  // gated [N, 2 I]: gate and up; then the first half is silu(gate) up.
  void gate(Dense both) {
    const int64_t width = shape_.mlp_width, stride = 2 * width;
    const Dense up{both.weight + width * shape_.width, both.bias == nullptr ? nullptr : both.bias + width};
    float* gated = work_.gated.data();
    const float* x = work_.normed.data();
    const Product gates{x, step_.rows, shape_.width, shape_.width, both, shape_.width, gated, stride, false};
    const Product ups{x, step_.rows, shape_.width, shape_.width, up, shape_.width, gated + width, stride, false};
    by_outputs(threads_, width, [&](int64_t first, int64_t last) {
      compute(gates, first, last);
      compute(ups, first, last);
      for (int64_t row = 0; row < step_.rows; ++row) silu_by(gated + row * stride, width, first, last);
    });
  }

  static void silu_by(float* gated, int64_t width, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += 8) {
      const __m256i left = lanes(last - i);
      const __m256 g = _mm256_maskload_ps(gated + i, left), u = _mm256_maskload_ps(gated + width + i, left);
      const __m256 one = _mm256_set1_ps(1.0f);
      const __m256 e = exp_of(_mm256_sub_ps(_mm256_setzero_ps(), g));
      _mm256_maskstore_ps(gated + i, left, _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(one, e)), u));
    }
  }

  void through_down(Dense down) {
    const int64_t width = shape_.mlp_width;
    const Product p{work_.gated.data(), step_.rows, width, 2 * width, down, width, work_.x.data(), shape_.width, true};
    by_outputs(threads_, shape_.width, [&](int64_t first, int64_t last) { compute(p, first, last); });
  }

  const Model& model_;
  const Shape& shape_;
  const Step& step_;
  int threads_;
  Work work_;
};

}  // namespace

void decode(const Model& model, const Step& step, int threads, float* logits) {
  Decoding(model, step, threads).run(logits);
}

void product(const float* x, int64_t rows, int64_t inputs, Dense dense, int64_t outputs, int threads, float* y) {
  const Product p{x, rows, inputs, inputs, dense, inputs, y, outputs, false};
  by_outputs(threads, outputs, [&](int64_t first, int64_t last) { compute(p, first, last); });
}

}  // namespace tandem::chat
