// The vector instructions this processor and its operating system offer.
#pragma once

#include <string>
#include <vector>

namespace tandem {

// Names as in /proc/cpuinfo ("avx2", "avx512f", ...), in a fixed order; empty on other architectures than x86-64.
std::vector<std::string> cpu_features();

}  // namespace tandem
