// A product with a sparse weight: y[N, M] = activation(x[N, K] * weight[M, K]^T + bias[M]), in float32.
//
// The weight is a bitmap of 8x8 tiles and the nonzeros in its order (docs/reference/sparse-format.md). Every path below
// computes whole strips of 8 rows, so that a result does not depend on how strips were shared out among threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tandem::sparse {

enum class Kind { bf16, fp16, int8 };
enum class Activation { none, relu, silu, gelu, gelu_tanh };

// How a strip is multiplied. `lanes`: eight columns of a row at once, zeros included; few columns of x.
// `lists`: the nonzeros one by one, each times all columns of x; many columns of x, many zeros.
enum class Way { automatic, lanes, lists };

struct Weight {
  const uint64_t* masks;   // [strips][tiles]
  const uint8_t* values;   // nonzeros, 64 elements readable behind the last
  const int64_t* starts;   // [strips + 1], in elements
  const float* scales;     // [rows] for int8, else null
  int64_t rows, cols;
  Kind kind;

  int64_t strips() const { return (rows + 7) / 8; }
  int64_t tiles() const { return (cols + 7) / 8; }
};

// x as the paths read it: rows of `stride` floats, a multiple of 8, zero from `cols` on.
struct Columns {
  const float* x;
  int64_t count, stride;
  bool is_bf16;  // every value is a bf16: a path may use such instructions without a loss
};

// A product under way: what a path made of x, shared by all threads.
class Job {
 public:
  virtual ~Job() = default;
  // Writes sums[((strip - first) * count + n) * 8 + row], before scales, bias and activation.
  virtual void strips(int64_t first, int64_t last, float* sums) const = 0;
};

// A path is a function that begins a job; what it is given outlives the job.
using Path = std::unique_ptr<Job> (*)(const Weight&, const Columns&, Way);

// The names of the paths that this processor can run, best first; the last, "scalar", runs anywhere.
std::vector<std::string> paths();

// Any path that was compiled, also "emulated", which plays the AVX-512 path without such a processor. Null for others.
Path path_by_name(const std::string& name);

struct Epilogue {
  const float* bias;  // [rows] or null
  Activation activation;
};

// Runs on `threads` threads. `x` is [N][cols] of bf16 or float32, `y` [N][rows].
void product(Path path, const Weight&, const void* x, int64_t count, bool x_is_bf16, Way, const Epilogue&, int threads,
             float* y);

// Writes rows [first * 8, last * 8) as float32, `stride` floats apart, all 8 * tiles columns of them and whole strips: what
// is beyond the matrix is zero. `stride` is at least 8 * tiles.
void decode(const Weight&, int64_t first_strip, int64_t last_strip, int threads, float* dense, int64_t stride);

// Value i of the nonzeros, widened; int8 without its scale.
float widened(const Weight&, int64_t i);

// How this processor decodes one strip best.
using Decoder = void (*)(const Weight&, int64_t strip, float* dense, int64_t stride);
Decoder decoder();
void decode_scalar(const Weight&, int64_t strip, float* dense, int64_t stride);
void decode_avx2(const Weight&, int64_t strip, float* dense, int64_t stride);

// Whether bf16 products by vdpbf16ps, which this processor has, are faster than without; it is timed.
bool avx512_bf16_is_quick();

// One file each.
std::unique_ptr<Job> begin_scalar(const Weight&, const Columns&, Way);
std::unique_ptr<Job> begin_avx2(const Weight&, const Columns&, Way);
std::unique_ptr<Job> begin_avx512(const Weight&, const Columns&, Way);
std::unique_ptr<Job> begin_avx512_bf16(const Weight&, const Columns&, Way);
std::unique_ptr<Job> begin_emulated(const Weight&, const Columns&, Way);

}  // namespace tandem::sparse
