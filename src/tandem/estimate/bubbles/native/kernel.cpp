#include "kernel.hpp"

namespace tandem::bubbles {

std::unique_ptr<Kernel> make(const std::string& kind, Role role, const std::string& folder) {
  if (kind == "cache") return make_cache(role);
  if (kind == "membw_read") return make_read_stream();
  if (kind == "membw_write") return make_write_stream();
  if (kind == "cpu") return make_cpu();
  if (kind == "fs_read") return make_file_reads(role, folder);
  if (kind == "fs_write") return make_synced_writes(role, folder);
  if (kind == "net") return make_network(role);
  throw std::invalid_argument("no kind of bubble is called '" + kind + "'");
}

int threads_per_core(const std::string& kind, Role role) {
  const bool waits_for_disk = kind == "fs_read" || kind == "fs_write";
  return role == Role::bubble && waits_for_disk ? 2 : 1;
}

}  // namespace tandem::bubbles
