#pragma once

#include <nanobind/nanobind.h>

namespace tandem::sparse {

// Adds what tandem.kernels.sparse uses to the extension module.
void bind(nanobind::module_& module);

}  // namespace tandem::sparse
