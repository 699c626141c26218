// Which paths were compiled, and which of them this processor can run.
#include "product.hpp"

namespace tandem::sparse {
namespace {

#if defined(TANDEM_SPARSE_X86)
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni");
}

bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

}  // namespace

std::vector<std::string> paths() {
  std::vector<std::string> names;
#if defined(TANDEM_SPARSE_X86)
  if (has_avx512()) names.emplace_back("avx512");
  if (has_avx512_bf16()) {
    static const bool is_quick = avx512_bf16_is_quick();
    names.insert(is_quick ? names.begin() : names.end(), "avx512_bf16");
  }
  if (has_avx2()) names.emplace_back("avx2");
#endif
  names.emplace_back("scalar");
  return names;
}

Path path_by_name(const std::string& name) {
#if defined(TANDEM_SPARSE_X86)
  if (name == "avx512" && has_avx512()) return begin_avx512;
  if (name == "avx512_bf16" && has_avx512_bf16()) return begin_avx512_bf16;
  if (name == "avx2" && has_avx2()) return begin_avx2;
#endif
  if (name == "emulated") return begin_emulated;
  return name == "scalar" ? begin_scalar : nullptr;
}

Decoder decoder() {
#if defined(TANDEM_SPARSE_X86)
  if (has_avx2()) return decode_avx2;
#endif
  return decode_scalar;
}

}  // namespace tandem::sparse
