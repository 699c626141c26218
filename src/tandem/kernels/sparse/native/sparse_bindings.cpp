// How Python sees the products: addresses of tensors that Python keeps alive and has checked.
//
// Addresses rather than arrays: bf16 has no numpy type, and a product of some hundred microseconds should not pay for
// five array objects.
#include "sparse_bindings.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "gpu_emulated.hpp"
#include "product.hpp"
#include "reading.hpp"
#include "unlocked.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tandem::sparse {
namespace {

using Address = uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

Kind kind_from(const std::string& name) {
  if (name == "bf16") return Kind::bf16;
  if (name == "fp16") return Kind::fp16;
  if (name == "int8") return Kind::int8;
  throw std::invalid_argument("values are bf16, fp16 or int8");
}

Activation activation_from(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  throw std::invalid_argument("an activation is none, relu, silu, gelu or gelu_tanh");
}

Way way_from(const std::string& name) {
  if (name == "automatic") return Way::automatic;
  if (name == "lanes") return Way::lanes;
  if (name == "lists") return Way::lists;
  throw std::invalid_argument("a way is automatic, lanes or lists");
}

Weight weight_at(Address masks, Address values, Address starts, Address scales, int64_t rows, int64_t cols,
                 const std::string& kind) {
  return {pointer<const uint64_t>(masks), pointer<const uint8_t>(values), pointer<const int64_t>(starts),
          pointer<const float>(scales), rows, cols, kind_from(kind)};
}

void multiply(const std::string& path_name, Address masks, Address values, Address starts, Address scales, int64_t rows,
              int64_t cols, const std::string& kind, Address x, int64_t count, bool x_is_bf16, Address bias,
              const std::string& activation, const std::string& way, int threads, Address y) {
  const Path path = path_by_name(path_name);
  if (path == nullptr) throw std::invalid_argument("this processor cannot run the path " + path_name);
  const Weight weight = weight_at(masks, values, starts, scales, rows, cols, kind);
  const Epilogue epilogue{pointer<const float>(bias), activation_from(activation)};
  const Way chosen = way_from(way);
  const Unlocked unlocked;
  product(path, weight, pointer<const void>(x), count, x_is_bf16, chosen, epilogue, threads, pointer<float>(y));
}

void decode_strips(Address masks, Address values, Address starts, Address scales, int64_t rows, int64_t cols,
                   const std::string& kind, int64_t first, int64_t last, int threads, Address dense,
                   int64_t stride) {
  const Weight weight = weight_at(masks, values, starts, scales, rows, cols, kind);
  const Unlocked unlocked;
  decode(weight, first, last, threads, pointer<float>(dense), stride);
}

}  // namespace

void bind(nb::module_& module) {
  module.def("sparse_paths", &paths, "Paths of sparse products that this processor can run, best first.");
  module.def("sparse_product", &multiply, "path"_a, "masks"_a, "values"_a, "starts"_a, "scales"_a, "rows"_a, "cols"_a,
             "kind"_a, "x"_a, "count"_a, "x_is_bf16"_a, "bias"_a, "activation"_a, "way"_a, "threads"_a, "y"_a,
             "y[N, M] = activation(x[N, K] * weight^T + bias), float32 but for x of bf16; tensors by address.");
  module.def("sparse_decode", &decode_strips, "masks"_a, "values"_a, "starts"_a, "scales"_a, "rows"_a, "cols"_a,
             "kind"_a, "first"_a, "last"_a, "threads"_a, "dense"_a, "stride"_a,
             "Writes strips [first, last) as float32 rows, padded; tensors by address.");
  module.def(
      "sparse_emulate_chunk",
      [](Address upper_masks, Address lower_masks, Address upper, Address lower, Address dense) {
        emulate_chunk(pointer<const uint64_t>(upper_masks), pointer<const uint64_t>(lower_masks),
                      pointer<const uint16_t>(upper), pointer<const uint16_t>(lower), pointer<uint16_t>(dense));
      },
      "upper_masks"_a, "lower_masks"_a, "upper"_a, "lower"_a, "dense"_a,
      "Decodes 32 tiles of two strips as a warp of the GPU's kernel does, into [16, 256]; tensors by address.");
  module.def(
      "sparse_emulate_piece",
      [](Address masks, Address turns, Address values, Address dense) {
        emulate_piece(pointer<const uint32_t>(masks), pointer<const uint32_t>(turns), pointer<const uint16_t>(values),
                      pointer<uint16_t>(dense));
      },
      "masks"_a, "turns"_a, "values"_a, "dense"_a,
      "Decodes a piece in the order of lanes as a warp of the GPU's kernel does, into [16, 256]; tensors by address.");
  module.def(
      "sparse_emulate_rows",
      [](Address masks, Address values, int tiles, Address dense) {
        emulate_rows(pointer<const uint64_t>(masks), pointer<const uint16_t>(values), tiles, pointer<uint16_t>(dense));
      },
      "masks"_a, "values"_a, "tiles"_a, "dense"_a,
      "Decodes a strip as a warp of the GPU's `decode` does, into [8, 8 * tiles]; tensors by address.");
  module.def("read_bandwidth", &read_bandwidth, "threads"_a, "parts"_a, "seconds"_a, nb::call_guard<Unlocked>(),
             "Best bandwidth in bytes/s at which `threads` threads read parts (address, bytes), over about `seconds`.");
  module.def("clock_hz", &clock_hz, "seconds"_a, nb::call_guard<Unlocked>(),
             "Cycles a second of one core, from dependent additions over about `seconds`.");
}

}  // namespace tandem::sparse
