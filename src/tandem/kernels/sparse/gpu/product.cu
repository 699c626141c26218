// y[N, M] = x[N, K] * weight[M, K]^T on TensorCores, the weight as docs/reference/sparse-format.md has it.
//
// Compiled at run time (backends/cuda.py) with TANDEM_X = 0 for bf16, 1 for fp16, and TANDEM_VALUES = 0 for values of x's own
// type, 1 for int8. A block is TANDEM_WARPS warps of 16 rows each. The columns of the weight are cut into chunks of 256 and, where
// there are too few rows to fill the GPU, into `splits` parts, each summed by blocks of its own into `partial`; `finish`
// adds the parts in a fixed order, then scale, bias and activation. Nothing is added atomically: a result is the same
// every time. `decode` writes strips as a dense matrix, for many rows of x, which are then multiplied as usual.
//
// A chunk's nonzeros lie in one piece per strip. They are copied into shared memory by cp.async, one chunk ahead of the one
// that is multiplied.
#include "fragment.cuh"

using namespace tandem_sparse;

namespace {

constexpr int warps = TANDEM_WARPS, warp_rows = 16, block_rows = warps * warp_rows, x_stride = chunk_columns + 8;
constexpr int value_bytes = TANDEM_VALUES == 1 ? 1 : 2;
constexpr int piece_bytes = 8 * chunk_columns * value_bytes + 32;  // a strip's nonzeros of a chunk, and what 16 bytes round
constexpr int stages = 2;

struct Shared {
  alignas(16) unsigned char values[warps][stages][2][piece_bytes];
  alignas(16) unsigned entries[warps][entries_words];
  alignas(16) unsigned short x[8 * TANDEM_BLOCKS_OF_8][x_stride];
};

#if TANDEM_VALUES == 1
struct Bytes {
  const signed char* values;
  __device__ __forceinline__ unsigned pair(unsigned at, unsigned two) const {
    const float low = two & 1 ? static_cast<float>(values[at]) : 0.0f;
    const float high = two & 2 ? static_cast<float>(values[at + (two & 1)]) : 0.0f;
    unsigned packed;
#if TANDEM_X == 0
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
#endif
    return packed;
  }
};
#endif

__device__ __forceinline__ void copy_16(void* to, const void* from) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from));
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;"); }

template <int pending>
__device__ __forceinline__ void wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending));
}

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if TANDEM_X == 0
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ int sum_of_warp(int value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

__device__ __forceinline__ int sum_before(int value, int lane) {
  int sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  return sum - value;
}

// One strip of a warp: its bitmap, and where the next chunk's nonzeros begin.
struct Strip {
  const unsigned long long* masks;  // null beyond the last strip
  const unsigned char* values;
  long long at;

  __device__ unsigned long long mask(int tile, int tiles) const {
    return masks != nullptr && tile < tiles ? __ldg(masks + tile) : 0ull;
  }

  __device__ void skip(int first, int lane) {
    int count = 0;
    for (int tile = lane; tile < first; tile += 32) count += count_64(mask(tile, first));
    at += sum_of_warp(count);
  }

  // Begins to copy `count` nonzeros; returns by how many bytes they lie behind the beginning of `to`. The caller's tensor is
  // readable 64 values beyond the last one.
  __device__ int fetch(unsigned char* to, int count, int lane) const {
    const unsigned char* from = values + at * value_bytes;
    const int skew = static_cast<int>(reinterpret_cast<unsigned long long>(from) & 15);
    for (int i = 16 * lane; i < count * value_bytes + skew; i += 16 * 32) copy_16(to + i, from - skew + i);
    return skew;
  }
};

// A chunk that is under way to shared memory.
struct Chunk {
  unsigned long long mask[2];
  int skew[2];

  __device__ void begin(Strip (&strips)[2], Shared& shared, int warp, int stage, int tile, int tiles, int lane) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      mask[s] = strips[s].mask(tile + lane, tiles);
      const int count = sum_of_warp(count_64(mask[s]));
      skew[s] = strips[s].fetch(shared.values[warp][stage][s], count, lane);
      strips[s].at += count;
    }
    commit();
  }
};

__device__ void load_x(Shared& shared, const unsigned short* x, int columns, int first) {
  constexpr int eights = chunk_columns / 8;
  for (int i = threadIdx.x; i < 8 * TANDEM_BLOCKS_OF_8 * eights; i += 32 * warps) {
    const int n = i / eights, k = 8 * (i % eights);
    uint4 eight = make_uint4(0, 0, 0, 0);
    if (first + k < columns) eight = __ldg(reinterpret_cast<const uint4*>(x + static_cast<long long>(n) * columns + first + k));
    *reinterpret_cast<uint4*>(&shared.x[n][k]) = eight;
  }
}

template <class Values>
__device__ void multiply_chunk(float (&sums)[TANDEM_BLOCKS_OF_8][4], const Shared& shared, const Values& upper,
                               const Values& lower, int warp, int lane) {
  const int row = lane / 4, column = 2 * (lane % 4);
#pragma unroll 4
  for (int fragment = 0; fragment < fragments; ++fragment) {
    const uint4 entry =
        *reinterpret_cast<const uint4*>(&shared.entries[warp][fragment * entry_stride + 4 * row]);
    const unsigned a[4] = {register_of(upper, entry.x, lane), register_of(lower, entry.y, lane),
                           register_of(upper, entry.z, lane), register_of(lower, entry.w, lane)};
#pragma unroll
    for (int block = 0; block < TANDEM_BLOCKS_OF_8; ++block) {
      const unsigned short* x = &shared.x[8 * block + row][16 * fragment + column];
      multiply(sums[block], a, *reinterpret_cast<const unsigned*>(x), *reinterpret_cast<const unsigned*>(x + 8));
    }
  }
}

}  // namespace

// Grid: (rows / block_rows rounded up, splits). x is [8 * TANDEM_BLOCKS_OF_8][8 * tiles], padded by zeros; `partial` is
// [splits][8 * TANDEM_BLOCKS_OF_8][block_rows * gridDim.x].
extern "C" __global__ void __launch_bounds__(32 * warps)
    product(const unsigned long long* masks, const unsigned char* values, const long long* starts, const unsigned short* x,
            float* partial, int strips, int tiles) {
  extern __shared__ unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int chunks = (tiles + chunk_tiles - 1) / chunk_tiles;
  const int first = static_cast<int>(static_cast<long long>(chunks) * blockIdx.y / gridDim.y);
  const int last = static_cast<int>(static_cast<long long>(chunks) * (blockIdx.y + 1) / gridDim.y);

  Strip pair[2];
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const int strip = (blockIdx.x * warps + warp) * 2 + s;
    const bool there = strip < strips;
    pair[s] = {there ? masks + static_cast<long long>(strip) * tiles : nullptr, values, there ? starts[strip] : 0};
    pair[s].skip(first * chunk_tiles, lane);
  }

  float sums[TANDEM_BLOCKS_OF_8][4] = {};
  Chunk next = {};
  if (first < last) next.begin(pair, shared, warp, first % stages, first * chunk_tiles, tiles, lane);
  for (int c = first; c < last; ++c) {
    __syncthreads();  // all have multiplied the chunk before: x may be written over
    load_x(shared, x, 8 * tiles, c * chunk_columns);
    const Chunk now = next;
    if (c + 1 < last)
      next.begin(pair, shared, warp, (c + 1) % stages, (c + 1) * chunk_tiles, tiles, lane);
    else
      commit();
#pragma unroll
    for (int s = 0; s < 2; ++s)
      write_entries(shared.entries[warp], s, lane, now.mask[s],
                    static_cast<unsigned>(sum_before(count_64(now.mask[s]), lane)));
    wait<1>();
    __syncthreads();
    const unsigned char* upper = shared.values[warp][c % stages][0] + now.skew[0];
    const unsigned char* lower = shared.values[warp][c % stages][1] + now.skew[1];
#if TANDEM_VALUES == 1
    multiply_chunk(sums, shared, Bytes{reinterpret_cast<const signed char*>(upper)},
                   Bytes{reinterpret_cast<const signed char*>(lower)}, warp, lane);
#else
    multiply_chunk(sums, shared, SixteenBits{reinterpret_cast<const unsigned short*>(upper)},
                   SixteenBits{reinterpret_cast<const unsigned short*>(lower)}, warp, lane);
#endif
  }

  const long long rows = static_cast<long long>(block_rows) * gridDim.x;
  float* out = partial + static_cast<long long>(blockIdx.y) * 8 * TANDEM_BLOCKS_OF_8 * rows;
  const int row = blockIdx.x * block_rows + warp * warp_rows + lane / 4;
#pragma unroll
  for (int block = 0; block < TANDEM_BLOCKS_OF_8; ++block) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int n = 8 * block + 2 * (lane % 4) + i % 2;
      out[n * rows + row + 8 * (i / 2)] = sums[block][i];
    }
  }
}

namespace {

// In the order of reference.ACTIVATIONS.
__device__ float activated(int activation, float value) {
  switch (activation) {
    case 1: return value < 0.0f ? 0.0f : value;  // NaN stays
    case 2: return value / (1.0f + expf(-value));
    case 3: return 0.5f * value * (1.0f + erff(value * 0.70710678118654752f));
    case 4: return 0.5f * value * (1.0f + tanhf(0.79788456080286536f * (value + 0.044715f * value * value * value)));
    default: return value;
  }
}

}  // namespace

// y[n][row] = activation(scale * (the parts' sums, in order) + bias). One thread an element of y.
extern "C" __global__ void finish(const float* partial, const float* scales, const float* bias, float* y, int rows, int count,
                                  int splits, int padded_rows, int padded_count, int activation) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  if (row >= rows || n >= count) return;
  float sum = 0;
  for (int split = 0; split < splits; ++split)
    sum += partial[(static_cast<long long>(split) * padded_count + n) * padded_rows + row];
  if (scales != nullptr) sum *= scales[row];
  if (bias != nullptr) sum += bias[row];
  y[static_cast<long long>(n) * rows + row] = activated(activation, sum);
}

// Writes strips [first, first + strips) as rows of 8 * tiles values in x's type, int8 without their scales. A warp has a
// strip, a lane a tile: what neighbouring lanes write of a row lies side by side.
extern "C" __global__ void __launch_bounds__(32 * warps)
    decode(const unsigned long long* masks, const unsigned char* values, const long long* starts, unsigned short* dense,
           int first, int strips, int tiles) {
  const int strip = blockIdx.x * warps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (strip >= strips) return;
  const unsigned long long* own = masks + static_cast<long long>(first + strip) * tiles;
  long long at = starts[first + strip];
  for (int tile = lane; tile - lane < tiles; tile += 32) {
    const unsigned long long mask = tile < tiles ? __ldg(own + tile) : 0ull;
    const int count = count_64(mask);
    unsigned begins = static_cast<unsigned>(sum_before(count, lane));
#if TANDEM_VALUES == 1
    const Bytes from{reinterpret_cast<const signed char*>(values) + at};
#else
    const SixteenBits from{reinterpret_cast<const unsigned short*>(values) + at};
#endif
    at += sum_of_warp(count);
    if (tile >= tiles) continue;
    unsigned short* to = dense + (static_cast<long long>(8) * strip * tiles + tile) * 8;
#pragma unroll
    for (int row = 0; row < 8; ++row) {
      const unsigned byte = static_cast<unsigned>(mask >> (8 * row)) & 255u;
      unsigned four[4];
      spread_row(from, begins, byte, four);
      begins += static_cast<unsigned>(popcount_32(byte));
      *reinterpret_cast<uint4*>(to + static_cast<long long>(row) * tiles * 8) = make_uint4(four[0], four[1], four[2], four[3]);
    }
  }
}
