// Instructions that CUDA C++ has no words for. In tests a processor plays them (tests/kernels/sparse/played), and this file alone
// is another there.
//
// Compiled with TANDEM_X = 0 for bf16, 1 for fp16; TANDEM_VALUES = 0 for values of x's own type, 1 for int8.
#pragma once

namespace {

__device__ __forceinline__ unsigned shared_address(const void* of) {
  return static_cast<unsigned>(__cvta_generic_to_shared(of));
}

// Begins to copy 16 bytes into shared memory, or to write as many zeros.
__device__ __forceinline__ void copy_16(unsigned to, const void* from, bool there = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;"); }

__device__ __forceinline__ void wait() { asm volatile("cp.async.wait_group 0;"); }

#if TANDEM_VALUES == 1
// Two int8 as a register of x's type.
__device__ __forceinline__ unsigned packed(float low, float high) {
  unsigned both;
#if TANDEM_X == 0
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#endif
  return both;
}
#else
__device__ __forceinline__ unsigned shared_16(unsigned address) {
  unsigned value;
  asm("ld.shared.u16 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}
#endif

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if TANDEM_X == 0
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

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
