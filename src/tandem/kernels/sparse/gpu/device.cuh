// What both products on TensorCores (product.cu, lanes.cu) have in common: their sizes, and what becomes of sums.
//
// Compiled with what instructions.cuh is, and TANDEM_WARPS, warps in a block; TANDEM_BLOCKS_OF_8, blocks of eight rows of x.
#pragma once

namespace {

constexpr int warps = TANDEM_WARPS, counts = 8 * TANDEM_BLOCKS_OF_8;
constexpr int x_columns = 256, x_stride = x_columns + 32;  // lanes of one row and of the next one read other banks
constexpr int value_bytes = TANDEM_VALUES == 1 ? 1 : 2;
constexpr int stages = 2;

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

// Writes a block's sums, of warps with `groups` times 16 rows each. Where columns are cut into parts, blocks of a cluster add
// them up in the order of the parts; without clusters (below sm_90) they go to `partial`, and `finish` does.
template <int groups>
__device__ __forceinline__ void write_sums(const float (&sums)[groups][TANDEM_BLOCKS_OF_8][4], unsigned char* memory,
                                           float* partial, const Output& output) {
  constexpr int block_rows = 16 * groups * warps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
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
  for (int i = 0; i < groups * TANDEM_BLOCKS_OF_8 * 4; ++i) {
    const int group = i / (TANDEM_BLOCKS_OF_8 * 4), block = i / 4 % TANDEM_BLOCKS_OF_8, part = i % 4;
    const int row = 16 * (warp * groups + group) + lane / 4 + 8 * (part / 2);
    const int n = 8 * block + 2 * (lane % 4) + part % 2;
    if (whole)
      output.write(blockIdx.x * block_rows + row, n, sums[group][block][part]);
    else
      to[static_cast<long long>(n) * stride + row] = sums[group][block][part];
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

}  // namespace

// The parts' sums, in order. One thread an element of y.
extern "C" __global__ void finish(const float* partial, const float* scales, const float* bias, float* y, int rows, int count,
                                  int activation, int splits, int padded_rows) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  if (row >= rows) return;
  float sum = 0;
  for (int split = 0; split < splits; ++split) sum += partial[(static_cast<long long>(split) * counts + n) * padded_rows + row];
  Output{scales, bias, y, rows, count, activation}.write(row, n, sum);
}
