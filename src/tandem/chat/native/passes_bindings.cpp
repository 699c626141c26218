// How Python sees the passes: tensors by address, which Python keeps alive and has checked.
#include "passes_bindings.hpp"

#include <nanobind/stl/tuple.h>

#include <stdexcept>
#include <tuple>

#include "passes.hpp"
#include "unlocked.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tandem::chat {
namespace {

using Address = uintptr_t;

const float* from(Address address) { return reinterpret_cast<const float*>(address); }
float* to(Address address) { return reinterpret_cast<float*>(address); }

// Runs a pass without Python's lock, where this build has it.
template <class Pass>
void run(const Pass& pass) {
#if defined(TANDEM_CHAT_AVX2)
  const Unlocked unlocked;
  pass();
#else
  throw std::invalid_argument("this build has no native passes");
#endif
}

}  // namespace

void bind_passes(nb::module_& module) {
  module.attr("PASSES_PIECE_TOKENS") = PIECE_TOKENS;
  module.def(
      "norm",
      [](int64_t tokens, int64_t width, Address weight, float eps, Address x, Address added, Address sum, Address y,
         Address factors, int threads) {
        run([&] { norm({tokens, width, from(weight)}, eps, from(x), from(added), to(sum), to(y), to(factors), threads); });
      },
      "tokens"_a, "width"_a, "weight"_a, "eps"_a, "x"_a, "added"_a, "sum"_a, "y"_a, "factors"_a, "threads"_a,
      "sum = x + added, and its root-mean-square norm y.");
  module.def(
      "norm_backward",
      [](int64_t tokens, int64_t width, Address weight, Address dy, Address dsum, Address sum, Address factors,
         Address dx, Address shares, int threads) {
        run([&] {
          norm_backward({tokens, width, from(weight)}, from(dy), from(dsum), from(sum), from(factors), to(dx),
                        to(shares), threads);
        });
      },
      "tokens"_a, "width"_a, "weight"_a, "dy"_a, "dsum"_a, "sum"_a, "factors"_a, "dx"_a, "shares"_a, "threads"_a,
      "The gradients of a norm: of what is summed, and shares of the weight's.");
  module.def(
      "rotate",
      [](Address x, std::tuple<int64_t, int64_t, int64_t, int64_t> shape, std::tuple<int64_t, int64_t, int64_t> strides,
         Address cosines, Address sines, int64_t table, bool transposed, Address y, int threads) {
        const auto& [rows, tokens, heads, size] = shape;
        const auto& [row_stride, token_stride, head_stride] = strides;
        const Heads given{from(x), rows, tokens, heads, size, row_stride, token_stride, head_stride};
        run([&] { rotate(given, from(cosines), from(sines), table, transposed, to(y), threads); });
      },
      "x"_a, "shape"_a, "strides"_a, "cosines"_a, "sines"_a, "table"_a, "transposed"_a, "y"_a, "threads"_a,
      "Heads turned by their tokens' angles, or back.");
  module.def(
      "gate",
      [](Address gates, Address ups, int64_t count, Address y, int threads) {
        run([&] { gate(from(gates), from(ups), count, to(y), threads); });
      },
      "gates"_a, "ups"_a, "count"_a, "y"_a, "threads"_a, "y = silu(gate) up.");
  module.def(
      "gate_backward",
      [](Address dy, Address gates, Address ups, int64_t count, Address dgates, Address dups, int threads) {
        run([&] { gate_backward(from(dy), from(gates), from(ups), count, to(dgates), to(dups), threads); });
      },
      "dy"_a, "gates"_a, "ups"_a, "count"_a, "dgates"_a, "dups"_a, "threads"_a, "Both gradients of silu(gate) up.");
}

}  // namespace tandem::chat
