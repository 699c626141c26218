#pragma once

#include <nanobind/nanobind.h>

namespace tandem::chat {

void bind(nanobind::module_& module);

}  // namespace tandem::chat
