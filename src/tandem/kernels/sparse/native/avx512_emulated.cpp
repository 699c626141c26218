// avx512_kernel.hpp without such a processor: for tests.
#include "emulated_intrinsics.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "product.hpp"

namespace tandem::sparse {
namespace {
namespace emulated {
#include "avx512_kernel.hpp"
}  // namespace emulated
}  // namespace

std::unique_ptr<Job> begin_emulated(const Weight& weight, const Columns& columns, Way) {
  return emulated::begin_512(weight, columns, true);
}

}  // namespace tandem::sparse
