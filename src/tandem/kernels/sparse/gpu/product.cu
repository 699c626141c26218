// y[N, M] = x[N, K] * weight[M, K]^T on TensorCores, the weight in the order of lanes (lanes.py).
//
// Compiled at run time (backends/cuda.py) with TANDEM_X = 0 for bf16, 1 for fp16, and TANDEM_VALUES = 0 for values of x's own
// type, 1 for int8. A block is TANDEM_WARPS warps, each with a panel of 16 rows. The columns of the weight are cut into
// chunks of 256 and, where there are too few rows to fill the GPU, into `splits` parts, each summed by blocks of its own.
// From sm_90 on the blocks of a row's parts are a cluster: each leaves its sums in its shared memory, and all add them up in
// the order of the parts. Elsewhere sums go to `partial`, and `finish` adds them. Nothing is added atomically: a result is
// the same every time. `decode` writes strips of the order on disk as a dense matrix, for many rows of x, which are then
// multiplied as usual.
//
// A panel's nonzeros of a chunk, a piece, lie in one stretch. They, and x, are copied into shared memory by cp.async one chunk
// ahead of the one that is multiplied; bits and turns go into registers.
#include "fragment.cuh"

using namespace tandem_sparse;

namespace {

constexpr int warps = TANDEM_WARPS, block_rows = 16 * warps;
constexpr int counts = 8 * TANDEM_BLOCKS_OF_8;
constexpr int x_stride = chunk_columns + 32;  // lanes of one row and of the next one read other banks
constexpr int value_bytes = TANDEM_VALUES == 1 ? 1 : 2, row_bytes = slots * value_bytes;
constexpr int stages = 2;
// Of a multiprocessor: there is shared memory for more warps than registers, unless they are held short.
constexpr int least_blocks = TANDEM_VALUES == 1 || TANDEM_BLOCKS_OF_8 > 2 ? 1 : (TANDEM_BLOCKS_OF_8 == 1 ? 24 : 20) / warps;

// A block's shared memory: x, then pieces of `piece_bytes`.
struct Fixed {
  alignas(16) unsigned short x[stages][counts][x_stride];
};

#if TANDEM_VALUES == 1
template <int stride>
struct Bytes {
  const signed char* values;
  __device__ __forceinline__ unsigned pair(unsigned& at, unsigned two) const {
    float low = 0.0f, high = 0.0f;
    if (two & 1) low = static_cast<float>(values[at]), at += stride;
    if (two & 2) high = static_cast<float>(values[at]), at += stride;
    unsigned packed;
#if TANDEM_X == 0
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
#endif
    return packed;
  }
};

// A piece in shared memory: `at` counts slots.
struct Piece {
  Bytes<slots> values;
  __device__ explicit Piece(unsigned address)
      : values{static_cast<const signed char*>(__cvta_shared_to_generic(address))} {}
  __device__ __forceinline__ unsigned at(unsigned slot) const { return slot; }
  __device__ __forceinline__ unsigned pair(unsigned& at, unsigned two) const { return values.pair(at, two); }
};
#else
__device__ __forceinline__ unsigned shared_16(unsigned address) {
  unsigned value;
  asm("ld.shared.u16 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

// A piece in shared memory: `at` is an address, and nothing is done for zeros.
struct Piece {
  unsigned address;
  __device__ explicit Piece(unsigned address) : address(address) {}
  __device__ __forceinline__ unsigned at(unsigned slot) const { return address + value_bytes * slot; }
  __device__ __forceinline__ unsigned pair(unsigned& at, unsigned two) const {
    unsigned both = 0;
    if (two & 1) both = shared_16(at), at += row_bytes;
    if (two & 2) both = __byte_perm(both, shared_16(at), 0x5410), at += row_bytes;
    return both;
  }
};
#endif

__device__ __forceinline__ unsigned shared_address(const void* of) { return static_cast<unsigned>(__cvta_generic_to_shared(of)); }

// Begins to copy 16 bytes into shared memory, or to write as many zeros.
__device__ __forceinline__ void copy_16(unsigned to, const void* from, bool there = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;"); }

__device__ __forceinline__ void wait() { asm volatile("cp.async.wait_group 0;"); }

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

// What a lane reads of a panel: its bits and turns of the next chunk and, for the copies, its 16 bytes of the next piece's rows.
struct Panel {
  const uint4* bits;
  const unsigned* turns;
  const int* begins;  // of the piece after the next one, in rows of slots
  const unsigned char* values;
  int begin, end;  // of the next piece

  __device__ __forceinline__ uint4 next_bits() {
    const uint4 found = __ldg(bits);
    bits += lanes;
    return found;
  }

  __device__ __forceinline__ unsigned next_turns() {
    const unsigned found = __ldg(turns);
    turns += lanes;
    return found;
  }

  // Begins to copy the next piece, 512 bytes at a time: up to 496 more than there are (beyond the last piece, too, values are
  // readable). `more` is whether another one follows.
  __device__ __forceinline__ void next_piece(unsigned to, bool more) {
    const unsigned char* from = values + static_cast<long long>(begin) * row_bytes;
    const int bytes = (end - begin) * row_bytes;
#pragma unroll 1
    for (int done = 0; done < bytes; done += 4 * 512) {
#pragma unroll
      for (int i = 0; i < 4 * 512; i += 512)
        if (done + i < bytes) copy_16(to + done + i, from + done + i);
    }
    begin = end;
    if (more) end = __ldg(++begins);
  }
};

// Begins to copy a chunk of x, zeros beyond its end; a lane has eight columns of every `warps`th row, which are `apart` values
// apart. Rows of x begin at multiples of 16 bytes.
__device__ __forceinline__ void fetch_x(unsigned to, const unsigned short* from, long long apart, int rows, bool there) {
#pragma unroll
  for (int i = 0; i < (counts + warps - 1) / warps; ++i) {
    if (counts % warps != 0 && i * warps + static_cast<int>(threadIdx.x / 32) >= counts) break;
    const bool is_row = there && i * warps < rows;
    copy_16(to + i * warps * x_stride * 2, is_row ? from + i * apart : from, is_row);
  }
}

__device__ __forceinline__ void multiply_chunk(float (&sums)[TANDEM_BLOCKS_OF_8][4],
                                               const unsigned short (&x)[counts][x_stride], const uint4& bits, unsigned turns,
                                               const Piece& piece, int lane) {
  unsigned at[2] = {piece.at(own_slot(lane, 0)), piece.at(own_slot(lane, 1))};
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {  // all steps at once would need too many registers
    const unsigned words[2] = {half == 0 ? bits.x : bits.z, half == 0 ? bits.y : bits.w};
#pragma unroll
    for (int step = 0; step < steps / 2; ++step) {
      unsigned a[2][4];
#pragma unroll
      for (int strip = 0; strip < 2; ++strip) {
        if (turn_step(turns, strip) - steps / 2 * half == step) at[strip] = piece.at(turn_slot(turns, strip));
        unsigned row[4];
        spread_row(piece, at[strip], byte_of(words, step, strip), row);
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i / 2][2 * (i % 2) + strip] = row[i];
      }
#pragma unroll
      for (int block = 0; block < TANDEM_BLOCKS_OF_8; ++block) {
        const int column = 8 * (step_tiles * (steps / 2 * half + step) + lane % 4);
        const uint4 b = *reinterpret_cast<const uint4*>(&x[8 * block + lane / 4][column]);
        multiply(sums[block], a[0], b.x, b.y);
        multiply(sums[block], a[1], b.z, b.w);
      }
    }
  }
}

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

// What becomes of a sum: y[n][row] = activation(scale * sum + bias).
struct Output {
  const float *scales, *bias;
  float* y;
  int rows, count, activation;

  __device__ void write(int row, int n, float sum) const {
    if (row >= rows || n >= count) return;
    if (scales != nullptr) sum *= scales[row];
    if (bias != nullptr) sum += bias[row];
    y[static_cast<long long>(n) * rows + row] = activated(activation, sum);
  }
};

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void meet_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ float of_block(const float* mine, int block) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(mine));
  float value;
  asm volatile("{\n.reg .u32 there;\nmapa.shared::cluster.u32 there, %1, %2;\nld.shared::cluster.f32 %0, [there];\n}"
               : "=f"(value)
               : "r"(address), "r"(block)
               : "memory");
  return value;
}
#endif

}  // namespace

// Grid: (rows / block_rows rounded up, splits); from sm_90 on a cluster is (1, splits). The weight as lanes.Lanes has it, x is
// [count][columns] with columns a multiple of 8, `partial` is [splits][counts][block_rows * gridDim.x], or null where it is
// not needed. Shared memory: Fixed, then warps * stages pieces of `piece_bytes`, which is a multiple of 512; for a cluster at
// least counts * block_rows floats.
extern "C" __global__ void __launch_bounds__(32 * warps, least_blocks)
    product(const uint4* masks, const unsigned* turns, const unsigned char* values, const int* begins,
            const unsigned short* x, float* partial, const float* scales, const float* bias, float* y, int rows, int count,
            int activation, int panels, int chunks, int columns, int piece_bytes) {
  extern __shared__ __align__(16) unsigned char memory[];
  Fixed& shared = *reinterpret_cast<Fixed*>(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = static_cast<int>(static_cast<long long>(chunks) * blockIdx.y / gridDim.y);
  const int last = static_cast<int>(static_cast<long long>(chunks) * (blockIdx.y + 1) / gridDim.y);

  const long long panel = min(static_cast<int>(blockIdx.x) * warps + warp, panels - 1);  // of those beyond nothing is written
  Panel own{masks + (panel * chunks + first) * lanes + lane, turns + (panel * chunks + first) * lanes + lane,
            begins + panel * chunks + first, values + 16 * lane, 0, 0};
  own.begin = __ldg(own.begins);
  own.end = __ldg(++own.begins);
  const unsigned staged = shared_address(memory) + sizeof(Fixed) + warp * stages * piece_bytes;
  int column = chunk_columns * first + 8 * lane;  // of x, the lane's next ones
  const unsigned x_to = shared_address(&shared.x[0][warp][8 * lane]);
  const unsigned short* x_from = x + static_cast<long long>(min(warp, count - 1)) * columns;
  const long long x_apart = static_cast<long long>(warps) * columns;

  float sums[TANDEM_BLOCKS_OF_8][4] = {};
  uint4 next_bits;
  unsigned next_turns;
  const auto fetch = [&](int chunk) {
    const bool there = column < columns;
    fetch_x(x_to + chunk % stages * sizeof shared.x[0], x_from + (there ? column : 0), x_apart, count - warp, there);
    column += chunk_columns;
    own.next_piece(staged + chunk % stages * piece_bytes + 16 * lane, chunk + 1 < last);
    commit();
    next_bits = own.next_bits();
    next_turns = own.next_turns();
  };
  fetch(first);
  for (int chunk = first; chunk < last; ++chunk) {
    wait();
    __syncthreads();  // all see x and their warp's piece, and nobody multiplies the chunk before any more
    const uint4 bits = next_bits;
    const unsigned turn = next_turns;
    if (chunk + 1 < last) fetch(chunk + 1);
    multiply_chunk(sums, shared.x[chunk % stages], bits, turn, Piece(staged + chunk % stages * piece_bytes), lane);
  }

  const Output output{scales, bias, y, rows, count, activation};
  const bool whole = gridDim.y == 1;
#if __CUDA_ARCH__ >= 900
  float* to = reinterpret_cast<float*>(memory);  // the block's own, which all blocks of its cluster read
  const int stride = block_rows;
  if (!whole) __syncthreads();  // nobody reads a chunk any more
#else
  const int stride = block_rows * gridDim.x;
  float* to = partial + static_cast<long long>(blockIdx.y) * counts * stride + blockIdx.x * block_rows;
#endif
#pragma unroll
  for (int i = 0; i < TANDEM_BLOCKS_OF_8 * 4; ++i) {
    const int block = i / 4, part = i % 4, row = 16 * warp + lane / 4 + 8 * (part / 2);
    const int n = 8 * block + 2 * (lane % 4) + part % 2;
    if (whole)
      output.write(blockIdx.x * block_rows + row, n, sums[block][part]);
    else
      to[static_cast<long long>(n) * stride + row] = sums[block][part];
  }
#if __CUDA_ARCH__ >= 900
  if (whole) return;
  meet_cluster();
  const int splits = gridDim.y;
  for (int i = blockIdx.y * 32 * warps + threadIdx.x; i < counts * block_rows; i += splits * 32 * warps) {
    float sum = 0;
    for (int split = 0; split < splits; ++split) sum += of_block(to + i, split);
    output.write(blockIdx.x * block_rows + i % block_rows, i / block_rows, sum);
  }
  meet_cluster();  // nobody leaves before its sums are read
#endif
}

// The parts' sums, in order. One thread an element of y.
extern "C" __global__ void finish(const float* partial, const float* scales, const float* bias, float* y, int rows, int count,
                                  int activation, int splits, int padded_rows) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  if (row >= rows) return;
  float sum = 0;
  for (int split = 0; split < splits; ++split) sum += partial[(static_cast<long long>(split) * counts + n) * padded_rows + row];
  Output{scales, bias, y, rows, count, activation}.write(row, n, sum);
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
    const Bytes<1> from{reinterpret_cast<const signed char*>(values) + at};
#else
    const SixteenBits<1> from{reinterpret_cast<const unsigned short*>(values) + at};
#endif
    at += sum_of_warp(count);
    if (tile >= tiles) continue;
    unsigned short* to = dense + (static_cast<long long>(8) * strip * tiles + tile) * 8;
#pragma unroll
    for (int row = 0; row < 8; ++row) {
      const unsigned byte = static_cast<unsigned>(mask >> (8 * row)) & 255u;
      unsigned four[4];
      spread_row(from, begins, byte, four);
      *reinterpret_cast<uint4*>(to + static_cast<long long>(row) * tiles * 8) = make_uint4(four[0], four[1], four[2], four[3]);
    }
  }
}
