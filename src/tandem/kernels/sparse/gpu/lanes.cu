// y[N, M] = x[N, K] * weight[M, K]^T on TensorCores, the weight in the order of lanes (../lanes.py).
//
// Compiled at run time (../arranged.py); options as in device.cuh. Each warp has a panel of 16 rows. Columns are cut into chunks
// of 256 and, where there are too few rows to fill the GPU, into `splits` parts, each summed by blocks of its own; how parts
// are added up says device.cuh. Nothing is added atomically: a result is the same every time. `decode` writes panels as a dense
// matrix, for many rows of x, which are then multiplied as usual.
//
// A panel's nonzeros of a chunk, a piece, lie in one stretch. They are copied into shared memory by cp.async as soon as the
// piece before is multiplied: what hides the wait are other warps, for which a second stage would leave no room. x is copied a
// chunk ahead; bits and turns go into registers.
#include "lanes.cuh"
#include "instructions.cuh"
#include "device.cuh"

using namespace tandem_lanes;

namespace {

constexpr int row_bytes = slots * value_bytes;
static_assert(x_columns == chunk_columns);
// Of a multiprocessor: there is shared memory for more warps than registers, unless they are held short.
constexpr int least_blocks = TANDEM_VALUES == 1 || TANDEM_BLOCKS_OF_8 > 2 ? 1 : (TANDEM_BLOCKS_OF_8 == 1 ? 28 : 20) / warps;

// A block's shared memory: x, then a piece of `piece_bytes` for each warp.
struct Fixed {
  alignas(16) unsigned short x[stages][counts][x_stride];
};

#if TANDEM_VALUES == 1
struct Bytes {
  const signed char* values;
  __device__ __forceinline__ unsigned pair(unsigned& at, unsigned two) const {
    float low = 0.0f, high = 0.0f;
    if (two & 1) low = static_cast<float>(values[at]), at += slots;
    if (two & 2) high = static_cast<float>(values[at]), at += slots;
    return packed(low, high);
  }
};

// A piece in shared memory: `at` counts slots.
struct Piece {
  Bytes values;
  __device__ explicit Piece(unsigned address)
      : values{static_cast<const signed char*>(__cvta_shared_to_generic(address))} {}
  __device__ __forceinline__ unsigned at(unsigned slot) const { return slot; }
  __device__ __forceinline__ unsigned pair(unsigned& at, unsigned two) const { return values.pair(at, two); }
};

using Values = Bytes;
#else
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

using Values = SixteenBits;
#endif

// Begins to copy a piece's rows [begin, end), 512 bytes at a time: up to 496 more than there are (beyond the last piece, too,
// values are readable). `to` and `values` are where a lane's first 16 bytes go to and come from.
__device__ __forceinline__ void fetch_piece(unsigned to, const unsigned char* values, int begin, int end) {
  const unsigned char* from = values + static_cast<long long>(begin) * row_bytes;
  const int bytes = (end - begin) * row_bytes;
#pragma unroll 1
  for (int done = 0; done < bytes; done += 4 * 512) {
#pragma unroll
    for (int i = 0; i < 4 * 512; i += 512)
      if (done + i < bytes) copy_16(to + done + i, from + done + i);
  }
  commit();
}

// Begins to copy a chunk of x, zeros beyond its end; a lane has eight columns of every `warps`th row, which are `apart` values
// apart. Rows of x begin at multiples of 16 bytes.
__device__ __forceinline__ void fetch_x(unsigned to, const unsigned short* from, int apart, int rows, bool there) {
#pragma unroll
  for (int i = 0; i < (counts + warps - 1) / warps; ++i) {
    if (counts % warps != 0 && i * warps + static_cast<int>(threadIdx.x / 32) >= counts) break;
    const bool is_row = there && i * warps < rows;
    copy_16(to + i * warps * x_stride * 2, is_row ? from + static_cast<long long>(i) * apart : from, is_row);
  }
  commit();
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

}  // namespace

// Grid: (rows / (16 * warps) rounded up, splits); from sm_90 on a cluster is (1, splits). The weight as lanes.Lanes has it, x is
// [count][columns] with columns a multiple of 8, `partial` is [splits][counts][16 * warps * gridDim.x], or null where it is
// not needed. Shared memory: Fixed, then warps pieces of `piece_bytes`, which is a multiple of 512; for a cluster at least
// counts * 16 * warps floats.
extern "C" __global__ void __launch_bounds__(32 * warps, least_blocks)
    product(const uint4* masks, const unsigned* turns, const unsigned char* values, const int* begins,
            const unsigned short* x, float* partial, const float* scales, const float* bias, float* y, int rows, int count,
            int activation, int panels, int chunks, int columns, int piece_bytes) {
  extern __shared__ __align__(16) unsigned char memory[];
  Fixed& shared = *reinterpret_cast<Fixed*>(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = static_cast<int>(static_cast<long long>(chunks) * blockIdx.y / gridDim.y);
  const int last = static_cast<int>(static_cast<long long>(chunks) * (blockIdx.y + 1) / gridDim.y);

  const int panel = min(static_cast<int>(blockIdx.x) * warps + warp, panels - 1);  // of those beyond nothing is written
  int piece = panel * chunks + first;  // the next one
  int begin = __ldg(begins + piece), end = __ldg(begins + piece + 1);
  const unsigned staged = shared_address(memory) + sizeof(Fixed) + warp * piece_bytes;
  int column = chunk_columns * first + 8 * lane;  // of x, the lane's next ones
  const unsigned x_to = shared_address(&shared.x[0][warp][8 * lane]);
  const unsigned short* x_from = x + static_cast<long long>(min(warp, count - 1)) * columns;

  float sums[1][TANDEM_BLOCKS_OF_8][4] = {};
  uint4 next_bits;
  unsigned next_turns;
  const auto fetch = [&](int chunk) {
    const bool there = column < columns;
    fetch_x(x_to + chunk % stages * sizeof shared.x[0], x_from + (there ? column : 0), warps * columns, count - warp, there);
    column += chunk_columns;
    next_bits = __ldg(masks + static_cast<long long>(piece) * lanes + lane);
    next_turns = __ldg(turns + static_cast<long long>(piece) * lanes + lane);
  };
  fetch(first);
  fetch_piece(staged + 16 * lane, values + 16 * lane, begin, end);
  for (int chunk = first; chunk < last; ++chunk) {
    wait();
    __syncthreads();  // all see x and their warp's piece, and nobody multiplies the chunk before any more
    const uint4 bits = next_bits;
    const unsigned turn = next_turns;
    ++piece;
    if (chunk + 1 < last) {
      fetch(chunk + 1);
      begin = end;
      end = __ldg(begins + piece + 1);
    }
    multiply_chunk(sums[0], shared.x[chunk % stages], bits, turn, Piece(staged), lane);
    __syncwarp();  // the piece may be written over
    if (chunk + 1 < last) fetch_piece(staged + 16 * lane, values + 16 * lane, begin, end);
  }
  write_sums(sums, memory, partial, Output{scales, bias, y, rows, count, activation});
}

// Writes panels [first, first + panels) as rows of 256 * chunks values in x's type, int8 without their scales. A warp has a
// panel's chunk.
extern "C" __global__ void __launch_bounds__(32 * warps)
    decode(const uint4* masks, const unsigned* turns, const unsigned char* values, const int* begins, unsigned short* dense,
           int first, int panels, int chunks) {
  const int piece = blockIdx.x * warps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (piece >= panels * chunks) return;
  const long long at_piece = static_cast<long long>(first) * chunks + piece;
  const uint4 bits = __ldg(masks + at_piece * lanes + lane);
  const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w}, turn = __ldg(turns + at_piece * lanes + lane);
  const unsigned char* own = values + static_cast<long long>(__ldg(begins + at_piece)) * row_bytes;
#if TANDEM_VALUES == 1
  const Values from{reinterpret_cast<const signed char*>(own)};
#else
  const Values from{reinterpret_cast<const unsigned short*>(own)};
#endif
  unsigned at[2] = {own_slot(lane, 0), own_slot(lane, 1)};
  unsigned short* to = dense + (16ll * (piece / chunks) * chunks + piece % chunks) * chunk_columns;
#pragma unroll
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int strip = 0; strip < 2; ++strip) {
      if (turn_step(turn, strip) == step) at[strip] = turn_slot(turn, strip);
      unsigned four[4];
      spread_row(from, at[strip], byte_of(words, step, strip), four);
      const long long row = lane / 4 + 8 * strip;
      *reinterpret_cast<uint4*>(to + row * chunks * chunk_columns + 8 * (step_tiles * step + lane % 4)) =
          make_uint4(four[0], four[1], four[2], four[3]);
    }
  }
}
