// A GPU of few blocks, played by a processor: what CUDA C++ gives the sources of kernels/sparse/gpu, and the instructions of their
// instructions.cuh. Each CUDA thread is a thread here, so that ThreadSanitizer sees what compute-sanitizer's racecheck would, and
// each tensor and each block's shared memory is an allocation of its exact size, so that AddressSanitizer sees what memcheck would.
//
// Played from NVIDIA's PTX ISA: cp.async, mma.m16n8k16 (fragments' layouts), barrier.cluster, mapa; from the CUDA C++ Programming
// Guide: built-in variables, shuffles, __syncthreads, __byte_perm. What a copy has begun to write is undefined until it is waited
// for: here all bits of it are set (no number), so that who reads it too early computes no number either.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct Place { unsigned x, y; };

#if defined(__SANITIZE_THREAD__)
extern "C" {
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace played {

[[noreturn]] inline void fail(const char* why) {
  std::fprintf(stderr, "played: %s\n", why);
  std::abort();
}

class Barrier {
 public:
  explicit Barrier(unsigned threads) { pthread_barrier_init(&barrier_, nullptr, threads); }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  Barrier(const Barrier&) = delete;
  void meet() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

// Bytes of an exact size, aligned as a GPU's allocations are, but for `behind`.
struct Memory {
  explicit Memory(size_t size, size_t behind = 0) {
    if (posix_memalign(&allocated, 256, size + behind) != 0) fail("no memory");
    bytes = static_cast<unsigned char*>(allocated) + behind;
  }
  ~Memory() { release(); }
  void release() {
    std::free(allocated);
    allocated = nullptr;
    bytes = nullptr;
  }
  Memory(const Memory&) = delete;
  void* allocated = nullptr;
  unsigned char* bytes;
};

// A shuffle and an mma.sync make lanes wait for one another, and order nothing of what they have written: for a sanitizer they
// have not met.
class Unordered {
 public:
#if defined(__SANITIZE_THREAD__)
  Unordered() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unordered() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
#else
  Unordered() {}
#endif
};

struct Warp {
  Barrier together{32};
  unsigned registers[32][6] = {};
};

struct Block {
  Block(unsigned threads, size_t shared_bytes)
      : together(threads), running(threads), shared(shared_bytes), shared_bytes(shared_bytes), warps(threads / 32) {
    std::memset(shared.bytes, 0xff, shared_bytes);
  }

  // Its shared memory is another block's as soon as none of its threads runs.
  void end_of_thread() {
    if (running.fetch_sub(1) == 1) shared.release();
  }

  Barrier together;
  std::atomic<unsigned> running;
  Memory shared;
  size_t shared_bytes;
  std::vector<Warp> warps;
};

struct Cluster {
  Cluster(unsigned blocks, unsigned threads, size_t shared_bytes) : together(blocks * threads) {
    for (unsigned i = 0; i < blocks; ++i) of.push_back(std::make_unique<Block>(threads, shared_bytes));
  }
  Barrier together;
  std::vector<std::unique_ptr<Block>> of;
};

struct Copy {
  unsigned char* to;
  const void* from;
  bool there;
};

inline thread_local Cluster* cluster;
inline thread_local Block* block;
inline thread_local Warp* warp;
inline thread_local unsigned lane;
inline thread_local std::vector<Copy> begun, committed;

}  // namespace played

inline thread_local Place threadIdx, blockIdx;
inline Place blockDim, gridDim;

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int min(int a, int b) { return a < b ? a : b; }

template <class T>
T __ldg(const T* at) {
  return *at;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t eight = uint64_t{high} << 32 | low;
  unsigned picked = 0;
  for (unsigned i = 0; i < 4; ++i) picked |= static_cast<unsigned>(eight >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return picked;
}

inline void __syncthreads() { played::block->together.meet(); }
inline void __syncwarp() { played::warp->together.meet(); }

inline int played_shuffle(int value, unsigned from) {
  const played::Unordered unordered;
  played::warp->registers[played::lane][0] = static_cast<unsigned>(value);
  __syncwarp();
  const unsigned found = played::warp->registers[from][0];
  __syncwarp();
  return static_cast<int>(found);
}

inline int __shfl_xor_sync(unsigned, int value, int mask) {
  return played_shuffle(value, played::lane ^ static_cast<unsigned>(mask));
}

inline int __shfl_up_sync(unsigned, int value, int by) {
  const auto step = static_cast<unsigned>(by);
  return played_shuffle(value, played::lane >= step ? played::lane - step : played::lane);
}

inline size_t __cvta_generic_to_shared(const void* of) {
  const auto* at = static_cast<const unsigned char*>(of);
  if (at < played::block->shared.bytes || at > played::block->shared.bytes + played::block->shared_bytes)
    played::fail("an address that is not of the block's shared memory");
  return static_cast<size_t>(at - played::block->shared.bytes);
}

inline void* __cvta_shared_to_generic(size_t address) { return played::block->shared.bytes + address; }

namespace {

unsigned shared_address(const void* of) { return static_cast<unsigned>(__cvta_generic_to_shared(of)); }

void copy_16(unsigned to, const void* from, bool there = true) {
  if (to % 16 != 0 || (there && reinterpret_cast<uintptr_t>(from) % 16 != 0)) played::fail("a copy that is not of 16 aligned bytes");
  auto* at = static_cast<unsigned char*>(__cvta_shared_to_generic(to));
  std::memset(at, 0xff, 16);
  played::begun.push_back({at, from, there});
}

void commit() {
  played::committed.insert(played::committed.end(), played::begun.begin(), played::begun.end());
  played::begun.clear();
}

void wait() {
  for (const auto& [to, from, there] : played::committed) {
    if (there)
      std::memcpy(to, from, 16);
    else
      std::memset(to, 0, 16);
  }
  played::committed.clear();
}

float from_16(unsigned bits) {
#if TANDEM_X == 0
  const uint32_t wide = bits << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
#else
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float value = std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
  if (exponent == 31) value = fraction ? NAN : INFINITY;
  return std::copysign(value, bits & 0x8000 ? -1.0f : 1.0f);
#endif
}

#if TANDEM_VALUES == 1
// Of whole numbers of a byte, which both types hold exactly.
unsigned to_16(float value) {
  for (unsigned bits = 0; bits < 1u << 16; ++bits)
    if (from_16(bits) == value && (value != 0 || bits == 0)) return bits;
  played::fail("a weight of a byte that 16 bits do not hold");
}

unsigned packed(float low, float high) {
  static const std::vector<unsigned> known = [] {
    std::vector<unsigned> found;
    for (int value = -128; value < 128; ++value) found.push_back(to_16(static_cast<float>(value)));
    return found;
  }();
  return known[static_cast<size_t>(low + 128)] | known[static_cast<size_t>(high + 128)] << 16;
}
#else
unsigned shared_16(unsigned address) {
  return *static_cast<const unsigned short*>(__cvta_shared_to_generic(address));
}
#endif

// Of the fragments: row lane / 4 of A and C, column lane / 4 of B; pairs of columns (A), rows (B), columns (C) 2 * (lane % 4).
void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const played::Unordered unordered;
  unsigned(&all)[32][6] = played::warp->registers;
  const unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  std::memcpy(all[played::lane], mine, sizeof mine);
  __syncwarp();
  const auto of_a = [&](unsigned row, unsigned k) {
    return from_16(all[4 * (row % 8) + k % 8 / 2][row / 8 + 2 * (k / 8)] >> (16 * (k % 2)) & 0xffff);
  };
  const auto of_b = [&](unsigned k, unsigned n) { return from_16(all[4 * n + k % 8 / 2][4 + k / 8] >> (16 * (k % 2)) & 0xffff); };
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned k = 0; k < 16; ++k)
      c[i] += of_a(played::lane / 4 + 8 * (i / 2), k) * of_b(k, 2 * (played::lane % 4) + i % 2);
  __syncwarp();
}

#if __CUDA_ARCH__ >= 900
void meet_cluster() { played::cluster->together.meet(); }

float of_block(const float* mine, int block) {
  const size_t address = __cvta_generic_to_shared(mine);
  float value;
  std::memcpy(&value, played::cluster->of[static_cast<size_t>(block)]->shared.bytes + address, sizeof value);
  return value;
}
#endif

}  // namespace
