#include "cpu_features.hpp"

namespace tandem {

std::vector<std::string> cpu_features() {
  std::vector<std::string> found;
#if defined(__x86_64__)
  __builtin_cpu_init();  // also asks the operating system (xgetbv) whether it saves the wide registers
#define TANDEM_ADD_IF_SUPPORTED(compilers_name, kernels_name) \
  if (__builtin_cpu_supports(compilers_name)) found.emplace_back(kernels_name)
  TANDEM_ADD_IF_SUPPORTED("sse4.2", "sse4_2");
  TANDEM_ADD_IF_SUPPORTED("avx", "avx");
  TANDEM_ADD_IF_SUPPORTED("avx2", "avx2");
  TANDEM_ADD_IF_SUPPORTED("fma", "fma");
  TANDEM_ADD_IF_SUPPORTED("avx512f", "avx512f");
  TANDEM_ADD_IF_SUPPORTED("avx512bw", "avx512bw");
  TANDEM_ADD_IF_SUPPORTED("avx512dq", "avx512dq");
  TANDEM_ADD_IF_SUPPORTED("avx512vl", "avx512vl");
  TANDEM_ADD_IF_SUPPORTED("avx512vnni", "avx512_vnni");
#if __GNUC__ >= 11
  TANDEM_ADD_IF_SUPPORTED("avx512bf16", "avx512_bf16");
#endif
#undef TANDEM_ADD_IF_SUPPORTED
#endif
  return found;
}

}  // namespace tandem
