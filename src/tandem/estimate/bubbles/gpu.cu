// Kernels of a GPU's bubbles and reporters (tandem.estimate.bubbles.gpu compiles them at run time with NVRTC).
//
// Every kernel works until its time is over, by the clock that all of a GPU share, and adds what it did to a counter:
// a launch is bounded however slow a neighbour makes it, and what is left of a killed process is one launch.

typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u64 now_ns() {
    u64 t;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
    return t;
}

// The time of one thread decides for its block, so that no thread waits at a barrier that another has left.
__device__ __forceinline__ bool goes_on(u64 end_ns) {
    __shared__ bool on;
    __syncthreads();
    if (threadIdx.x == 0) on = now_ns() < end_ns;
    __syncthreads();
    return on;
}

__device__ __forceinline__ void add(u64* count, u64 done) {
    if (threadIdx.x == 0) atomicAdd(count, done);
}

// Multiply-adds in registers; the dial is the number of blocks. One turn is 8 x 256 of them in each thread.
extern "C" __global__ void occupy(u64 span_ns, u64* count, float* sink) {
    const u64 end_ns = now_ns() + span_ns;
    float x[8];
    for (int j = 0; j < 8; ++j) x[j] = 1.0f + 1e-6f * (float)(threadIdx.x + j);
    u64 turns = 0;
    while (goes_on(end_ns)) {
        for (int i = 0; i < 256; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) x[j] = fmaf(x[j], 1.0000001f, 1e-7f);
        ++turns;
    }
    float sum = 0.0f;
    for (int j = 0; j < 8; ++j) sum += x[j];
    if (sum == -1.0f) *sink = sum;  // never so; the compiler cannot know
    add(count, turns);
}

// Reads 16 bytes a thread, round and round through `vectors` of them: within the L2 cache or beyond it, as the footprint
// is. Loads go past L1 (ld.global.cg). One turn is eight loads in each thread.
extern "C" __global__ void read_round(const uint4* data, u64 vectors, u64 span_ns, u64* count, u32* sink) {
    const u64 end_ns = now_ns() + span_ns;
    const u64 stride = (u64)gridDim.x * blockDim.x;
    u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) % vectors;
    u32 sum = 0;
    u64 turns = 0;
    while (goes_on(end_ns)) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const uint4 v = __ldcg(data + at);
            sum += v.x ^ v.y ^ v.z ^ v.w;
            at += stride;
            if (at >= vectors) at %= vectors;
        }
        ++turns;
    }
    if (sum == 0xffffffffu) *sink = sum;  // data is all zero
    add(count, turns);
}
