// y[N, M] = x[N, K] * weight[M, K]^T on TensorCores, the weight as docs/reference/sparse-format.md has it.
//
// Compiled at run time (backends/cuda.py) with TANDEM_X = 0 for bf16, 1 for fp16, and TANDEM_VALUES = 0 for values of x's own
// type, 1 for int8. A block is TANDEM_WARPS warps, each with TANDEM_GROUPS times 16 rows. The columns of the weight are cut
// into chunks of 256 and, where there are too few rows to fill the GPU, into `splits` parts, each summed by blocks of its
// own. From sm_90 on the blocks of a row's parts are a cluster: each leaves its sums in its shared memory, and all add
// them up in the order of the parts. Elsewhere sums go to `partial`, and `finish` adds them. Nothing is added atomically: a
// result is the same every time. `decode` writes strips as a dense matrix, for many rows of x, which are then multiplied
// as usual; `count` makes the table of where a strip's chunks begin, once for each weight.
//
// A chunk's nonzeros lie in one piece per strip. They, and x, are copied into shared memory by cp.async, one chunk ahead of
// the one that is multiplied.
#include "fragment.cuh"
#include "instructions.cuh"
#include "device.cuh"

using namespace tandem_sparse;

namespace {

using tandem_sparse::spread_row;

constexpr int groups = TANDEM_GROUPS;
static_assert(x_columns == chunk_columns);

// A block's shared memory: x, entries of each warp and group, then pieces of `piece_bytes`.
struct Fixed {
  alignas(16) unsigned short x[stages][counts][x_stride];
  alignas(16) unsigned entries[warps][groups][entries_words];
};

#if TANDEM_VALUES == 1
struct Bytes {
  const signed char* values;
  __device__ __forceinline__ unsigned pair(unsigned at, unsigned two) const {
    const float low = two & 1 ? static_cast<float>(values[at]) : 0.0f;
    const float high = two & 2 ? static_cast<float>(values[at + (two & 1)]) : 0.0f;
    return packed(low, high);
  }
};
#endif

#if TANDEM_VALUES == 0
// Values of 16 bits in shared memory, and fragment.cuh's spread_row of them: one walk through the row's nonzeros, and
// nothing done for zeros.
struct Near {
  unsigned address;
};

__device__ __forceinline__ void spread_row(const Near& values, unsigned at, unsigned byte, unsigned (&four)[4]) {
  unsigned address = values.address + 2 * at;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    unsigned two = 0;
    if (byte & 1u << 2 * i) {
      two = shared_16(address);
      address += 2;
    }
    if (byte & 2u << 2 * i) {
      two = __byte_perm(two, shared_16(address), 0x5410);
      address += 2;
    }
    four[i] = two;
  }
}
#endif

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

// One strip of a warp; `masks` is null beyond the last one.
struct Strip {
  const unsigned long long* masks;
  const unsigned char* values;
  const int* begins;  // of its chunks, counted from its first nonzero
  int chunks;
  int at[3];  // where the chunk that is multiplied begins, the next one, and the one behind that

  __device__ void begin_at(int chunk) {
#pragma unroll
    for (int i = 0; i < 3; ++i) at[i] = masks != nullptr ? __ldg(begins + min(chunk + i, chunks)) : 0;
  }

  __device__ void advance(int chunk) {
    at[0] = at[1], at[1] = at[2];
    at[2] = masks != nullptr ? __ldg(begins + min(chunk + 2, chunks)) : 0;
  }

  __device__ unsigned long long mask(int tile, int tiles) const {
    return masks != nullptr && tile < tiles ? __ldg(masks + tile) : 0ull;
  }

  // Begins to copy the nonzeros of the chunk at `at[which]`. The caller's tensor is readable 64 values beyond the last one.
  template <int which>
  __device__ void fetch(unsigned char* to, int lane) const {
    const unsigned char* from = values + static_cast<long long>(at[which]) * value_bytes;
    const int skew = skew_of<which>();
    for (int i = 16 * lane; i < (at[which + 1] - at[which]) * value_bytes + skew; i += 16 * 32)
      copy_16(shared_address(to + i), from - skew + i);
  }

  // By how many bytes a chunk's nonzeros lie behind the beginning of their piece.
  template <int which>
  __device__ int skew_of() const {
    return static_cast<int>(reinterpret_cast<unsigned long long>(values + static_cast<long long>(at[which]) * value_bytes) & 15);
  }
};

// Begins to copy a chunk of x, zeros beyond its end. Rows of x begin at multiples of 16 bytes.
__device__ void fetch_x(unsigned short (&to)[counts][x_stride], const unsigned short* x, int rows, int columns, int first) {
  constexpr int eights = chunk_columns / 8;
  for (int i = threadIdx.x; i < counts * eights; i += 32 * warps) {
    const int n = i / eights, k = 8 * (i % eights);
    const bool there = n < rows && first + k < columns;
    copy_16(shared_address(&to[n][k]), there ? x + static_cast<long long>(n) * columns + first + k : x, there);
  }
}

template <class Values>
__device__ __forceinline__ void multiply_chunk(float (&sums)[groups][TANDEM_BLOCKS_OF_8][4], const unsigned short (&x)[counts][x_stride],
                                               const unsigned (&entries)[groups][entries_words], const Values (&values)[groups][2],
                                               int lane) {
#pragma unroll(3 - groups)
  for (int step = 0; step < steps; ++step) {
    unsigned a[groups][2][4];
#pragma unroll
    for (int group = 0; group < groups; ++group) {
      const uint2 entry = *reinterpret_cast<const uint2*>(&entries[group][step * entry_stride + 2 * lane]);
      unsigned upper[4], lower[4];
      spread_row(values[group][0], entry.x & 0xffffu, entry.x >> 16, upper);
      spread_row(values[group][1], entry.y & 0xffffu, entry.y >> 16, lower);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        a[group][half][0] = upper[2 * half];
        a[group][half][1] = lower[2 * half];
        a[group][half][2] = upper[2 * half + 1];
        a[group][half][3] = lower[2 * half + 1];
      }
    }
#pragma unroll
    for (int block = 0; block < TANDEM_BLOCKS_OF_8; ++block) {
      const uint4 b = *reinterpret_cast<const uint4*>(&x[8 * block + lane / 4][8 * step_tiles * step + 8 * (lane % 4)]);
#pragma unroll
      for (int group = 0; group < groups; ++group) {
        multiply(sums[group][block], a[group][0], b.x, b.y);
        multiply(sums[group][block], a[group][1], b.z, b.w);
      }
    }
  }
}

}  // namespace

// Grid: (rows / block_rows rounded up, splits); from sm_90 on a cluster is (1, splits). `begins` is [strips][chunks + 1], x is
// [count][columns] with columns a multiple of 8, `partial` is [splits][counts][block_rows * gridDim.x], or null where it is
// not needed. Shared memory: Fixed, then warps * stages * groups * 2 pieces; for a cluster at least counts * block_rows floats.
extern "C" __global__ void __launch_bounds__(32 * warps, 2)
    product(const unsigned long long* masks, const unsigned char* values, const long long* starts, const int* begins,
            const unsigned short* x, float* partial, const float* scales, const float* bias, float* y, int rows, int count,
            int activation, int strips, int tiles, int columns, int piece_bytes) {
  extern __shared__ __align__(16) unsigned char memory[];
  Fixed& shared = *reinterpret_cast<Fixed*>(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned char* pieces = memory + sizeof(Fixed) + warp * stages * groups * 2 * piece_bytes;
  const int chunks = (tiles + chunk_tiles - 1) / chunk_tiles;
  const int first = static_cast<int>(static_cast<long long>(chunks) * blockIdx.y / gridDim.y);
  const int last = static_cast<int>(static_cast<long long>(chunks) * (blockIdx.y + 1) / gridDim.y);

  Strip own[groups][2];
#pragma unroll
  for (int i = 0; i < 2 * groups; ++i) {
    const int strip = (blockIdx.x * warps + warp) * 2 * groups + i;
    const bool there = strip < strips;
    own[i / 2][i % 2] = {there ? masks + static_cast<long long>(strip) * tiles : nullptr,
                         there ? values + starts[strip] * value_bytes : values,
                         begins + static_cast<long long>(strip) * (chunks + 1), chunks};
    own[i / 2][i % 2].begin_at(first);
  }
  const auto piece = [&](int chunk, int i) { return pieces + ((chunk % stages) * 2 * groups + i) * piece_bytes; };

  float sums[groups][TANDEM_BLOCKS_OF_8][4] = {};
  unsigned long long next[groups][2] = {};
  if (first < last) {
#pragma unroll
    for (int i = 0; i < 2 * groups; ++i) own[i / 2][i % 2].fetch<0>(piece(first, i), lane);
    fetch_x(shared.x[first % stages], x, count, columns, first * chunk_columns);
    commit();
#pragma unroll
    for (int i = 0; i < 2 * groups; ++i) next[i / 2][i % 2] = own[i / 2][i % 2].mask(first * chunk_tiles + lane, tiles);
  }
  for (int c = first; c < last; ++c) {
#pragma unroll
    for (int group = 0; group < groups; ++group) {
      const unsigned long long upper = next[group][0], lower = next[group][1];
      const int before = sum_before(count_64(upper) | count_64(lower) << 16, lane);  // at most 2,048 each
      write_entries(shared.entries[warp][group], lane, upper, before & 0xffff, lower, static_cast<unsigned>(before) >> 16);
    }
    wait();
    __syncthreads();  // all see x and their warp's entries, and nobody multiplies the chunk before any more
    if (c + 1 < last) {
#pragma unroll
      for (int i = 0; i < 2 * groups; ++i) own[i / 2][i % 2].fetch<1>(piece(c + 1, i), lane);
      fetch_x(shared.x[(c + 1) % stages], x, count, columns, (c + 1) * chunk_columns);
      commit();
#pragma unroll
      for (int i = 0; i < 2 * groups; ++i)
        next[i / 2][i % 2] = own[i / 2][i % 2].mask((c + 1) * chunk_tiles + lane, tiles);
    }
#if TANDEM_VALUES == 1
    Bytes from[groups][2];
#pragma unroll
    for (int i = 0; i < 2 * groups; ++i)
      from[i / 2][i % 2].values = reinterpret_cast<const signed char*>(piece(c, i) + own[i / 2][i % 2].skew_of<0>());
#else
    Near from[groups][2];
#pragma unroll
    for (int i = 0; i < 2 * groups; ++i)
      from[i / 2][i % 2].address =
          static_cast<unsigned>(__cvta_generic_to_shared(piece(c, i) + own[i / 2][i % 2].skew_of<0>()));
#endif
#pragma unroll
    for (int i = 0; i < 2 * groups; ++i) own[i / 2][i % 2].advance(c + 1);
    multiply_chunk(sums, shared.x[c % stages], shared.entries[warp], from, lane);
    __syncwarp();  // entries may be written over
  }

  const Output output{scales, bias, y, rows, count, activation};
  write_sums(sums, memory, partial, output);
}

// begins[strip][chunk]: how many nonzeros of the strip lie before the chunk; the last one is all of them. A warp has a strip.
extern "C" __global__ void __launch_bounds__(32 * warps)
    count(const unsigned long long* masks, int* begins, int strips, int tiles) {
  const int strip = blockIdx.x * warps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (strip >= strips) return;
  const int chunks = (tiles + chunk_tiles - 1) / chunk_tiles;
  int before = 0;
  for (int chunk = 0; chunk <= chunks; ++chunk) {
    if (lane == 0) begins[static_cast<long long>(strip) * (chunks + 1) + chunk] = before;
    const int tile = chunk * chunk_tiles + lane;
    before += sum_of_warp(tile < tiles ? count_64(__ldg(masks + static_cast<long long>(strip) * tiles + tile)) : 0);
  }
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
