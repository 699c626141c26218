// avx512_kernel.hpp for a processor that has AVX-512 with VBMI2 and VNNI; BF16 is asked for separately, since Ice Lake
// has the others without it.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "product.hpp"

namespace tandem::sparse {
namespace {
#include "avx512_kernel.hpp"
}  // namespace

std::unique_ptr<Job> begin_avx512(const Weight& weight, const Columns& columns, Way) {
  return begin_512(weight, columns, __builtin_cpu_supports("avx512bf16"));
}

}  // namespace tandem::sparse
