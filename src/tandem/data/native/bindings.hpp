#pragma once

#include <nanobind/nanobind.h>

namespace tandem::data {

// Adds what tandem.data uses to the extension module.
void bind(nanobind::module_& module);

}  // namespace tandem::data
