// How Python sees a step: a model of addresses that Python keeps alive and has checked, and one call a token.
#include "llama_bindings.hpp"

#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "llama_step.hpp"
#include "unlocked.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tandem::chat {
namespace {

using Address = uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

Dense dense_at(Address weight, Address bias) { return {pointer<const float>(weight), pointer<const float>(bias)}; }

Model model_of(std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t> sizes, float eps, float scale,
               const std::vector<std::vector<Address>>& layers, const std::vector<Address>& rest) {
  Model model{};
  const auto& [width, queries, keys, size, mlp_width, vocabulary] = sizes;
  model.shape = {width, queries, keys, size, mlp_width, vocabulary, eps, scale};
  for (const auto& at : layers) {
    if (at.size() != 10) throw std::invalid_argument("a layer has ten addresses");
    model.layers.push_back({pointer<const float>(at[0]), dense_at(at[1], at[2]), dense_at(at[3], at[4]),
                            pointer<const float>(at[5]), dense_at(at[6], at[7]), dense_at(at[8], at[9])});
  }
  if (rest.size() != 6) throw std::invalid_argument("embedding, norm, head, its bias, cosines, sines");
  model.embedding = pointer<const float>(rest[0]);
  model.norm = pointer<const float>(rest[1]);
  model.head = dense_at(rest[2], rest[3]);
  model.cosines = pointer<const float>(rest[4]);
  model.sines = pointer<const float>(rest[5]);
  return model;
}

void step(const Model& model, Address tokens, Address positions, int64_t rows, Address cache, int64_t slots,
          int64_t capacity, int threads, Address logits) {
#if defined(TANDEM_CHAT_AVX2)
  const Step at{pointer<const int64_t>(tokens), pointer<const int64_t>(positions), rows,
                pointer<float>(cache), slots, capacity};
  const Unlocked unlocked;
  decode(model, at, threads, pointer<float>(logits));
#else
  throw std::invalid_argument("this build has no native steps");
#endif
}

void multiply(Address x, int64_t rows, int64_t inputs, Address weight, Address bias, int64_t outputs, int threads,
              Address y) {
#if defined(TANDEM_CHAT_AVX2)
  const Unlocked unlocked;
  product(pointer<const float>(x), rows, inputs, dense_at(weight, bias), outputs, threads, pointer<float>(y));
#else
  throw std::invalid_argument("this build has no native steps");
#endif
}

}  // namespace

void bind(nb::module_& module) {
#if defined(TANDEM_CHAT_AVX2)
  module.attr("CHAT_NEEDS") = nb::make_tuple("avx2", "fma");
#else
  module.attr("CHAT_NEEDS") = nb::none();
#endif
  nb::class_<Model>(module, "LlamaModel", "A model of Llama's shape in float32; tensors by address.")
      .def("__init__",
           [](Model* self, std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t> sizes, float eps,
              float scale, const std::vector<std::vector<Address>>& layers, const std::vector<Address>& rest) {
             new (self) Model(model_of(sizes, eps, scale, layers, rest));
           },
           "sizes"_a, "eps"_a, "scale"_a, "layers"_a, "rest"_a)
      .def("step", &step, "tokens"_a, "positions"_a, "rows"_a, "cache"_a, "slots"_a, "capacity"_a, "threads"_a,
           "logits"_a, "Append a token to each row and write the logits of the next.");
  module.def("llama_product", &multiply, "x"_a, "rows"_a, "inputs"_a, "weight"_a, "bias"_a, "outputs"_a, "threads"_a,
             "y"_a, "y[N, M] = x[N, K] weight^T + bias as a step computes it; tensors by address.");
}

}  // namespace tandem::chat
