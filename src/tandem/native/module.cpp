// The extension module tandem._native: native code that Python calls, each part in a file of its own.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "copy_bandwidth.hpp"
#include "cpu_features.hpp"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(_native, module) {
  module.doc() = "Native parts of Tandem; every caller has a fallback for where this is not built.";
  module.def("cpu_features", &tandem::cpu_features,
             "Names of the vector instruction sets that may be used, as in /proc/cpuinfo.");
  module.def("copy_bandwidth", &tandem::copy_bandwidth, "threads"_a, "bytes"_a, "seconds"_a,
             nb::call_guard<nb::gil_scoped_release>(),
             "Streaming (triad) bandwidth in bytes/s of `threads` threads over `bytes` of arrays for `seconds`.");
}
