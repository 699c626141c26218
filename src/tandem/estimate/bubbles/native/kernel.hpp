// What a kernel is: one kind of work that can be done at a level, as an antagonist or as a reporter.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace tandem::bubbles {

// A bubble presses on a resource; a reporter is sensitive to it and counts what it gets done.
enum class Role { bubble, reporter };

class Kernel {
 public:
  virtual ~Kernel() = default;

  // Works at `level` in (0, 1] for one short period, its pauses included, and returns the operations done. A period is
  // 0.1 to 4 ms, longer only where a single operation of a disk is. Throws std::system_error.
  virtual uint64_t run(double level) = 0;
};

// Each makes a kernel that belongs to the calling thread: its memory is touched first by that thread.
std::unique_ptr<Kernel> make_cache(Role role);
std::unique_ptr<Kernel> make_read_stream();
std::unique_ptr<Kernel> make_write_stream();
std::unique_ptr<Kernel> make_cpu();
std::unique_ptr<Kernel> make_file_reads(Role role, const std::string& folder);
std::unique_ptr<Kernel> make_synced_writes(Role role, const std::string& folder);
std::unique_ptr<Kernel> make_network(Role role);

// By the names of tandem.estimate.profile.KINDS. Throws std::invalid_argument for another one.
std::unique_ptr<Kernel> make(const std::string& kind, Role role, const std::string& folder);

// Threads that a kernel wants on each core: those that wait for a disk press with several requests at once.
int threads_per_core(const std::string& kind, Role role);

}  // namespace tandem::bubbles
