// The extension module tandem._native: native code that Python calls, each part in a file of its own.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "copy_bandwidth.hpp"
#include "cpu_features.hpp"
#include "kernel.hpp"
#include "llama_bindings.hpp"
#include "pace.hpp"
#include "passes_bindings.hpp"
#include "sparse_bindings.hpp"
#include "unlocked.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// What a bubble's or a reporter's kernel gets done in this thread in about `seconds`.
uint64_t bubble_work(const std::string& kind, bool reporter, double level, double seconds, const std::string& folder) {
  using namespace tandem::bubbles;
  if (!(level > 0 && level <= 1)) throw std::invalid_argument("a kernel works at a level above 0, up to 1");
  const auto kernel = make(kind, reporter ? Role::reporter : Role::bubble, folder);
  const int64_t end = now_ns() + static_cast<int64_t>(seconds * 1e9);
  uint64_t count = 0;
  do count += kernel->run(level);
  while (now_ns() < end);
  return count;
}

}  // namespace

NB_MODULE(_native, module) {
#ifdef NDEBUG  // a program that is broken off in the middle leaves objects behind, and its user need not hear of each
  nb::set_leak_warnings(false);
#endif
  module.doc() = "Native parts of Tandem; every caller has a fallback for where this is not built.";
  module.def("cpu_features", &tandem::cpu_features,
             "Names of the vector instruction sets that may be used, as in /proc/cpuinfo.");
  module.def("copy_bandwidth", &tandem::copy_bandwidth, "threads"_a, "bytes"_a, "seconds"_a,
             nb::call_guard<tandem::Unlocked>(),
             "Streaming (triad) bandwidth in bytes/s of `threads` threads over `bytes` of arrays for `seconds`.");
  module.def("bubble_work", &bubble_work, "kind"_a, "reporter"_a, "level"_a, "seconds"_a, "folder"_a,
             nb::call_guard<tandem::Unlocked>(),
             "Operations that one kernel of `tandem.estimate.bubbles` does in this thread in about `seconds`.");
  tandem::chat::bind(module);
  tandem::chat::bind_passes(module);
  tandem::data::bind(module);
  tandem::sparse::bind(module);
}
