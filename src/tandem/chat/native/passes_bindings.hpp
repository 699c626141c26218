#pragma once

#include <nanobind/nanobind.h>

namespace tandem::chat {

void bind_passes(nanobind::module_& module);

}  // namespace tandem::chat
