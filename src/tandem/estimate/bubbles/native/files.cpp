// A disk: reads that miss the page cache, and writes that wait until they are durable. The file has no name from the
// start (O_TMPFILE; else unlinked at once), so nothing is left however the process ends, and it never grows.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "kernel.hpp"
#include "memory.hpp"
#include "pace.hpp"

namespace tandem::bubbles {
namespace {

constexpr std::size_t FILE_BYTES = std::size_t{16} << 20;
constexpr std::size_t BUBBLE_READ_BYTES = std::size_t{64} << 10;
constexpr std::size_t BUBBLE_WRITE_BYTES = std::size_t{64} << 10;
constexpr std::size_t REPORTER_BYTES = std::size_t{4} << 10;

[[noreturn]] void fail(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

int open_nameless(const std::string& folder) {
  int fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) fail("cannot make a file in " + folder);
  std::string name = folder + "/.tandem-bubble-XXXXXX";
  fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0 || unlink(name.c_str()) != 0) fail("cannot make a file in " + folder);
  return fd;
}

class File {
 public:
  explicit File(const std::string& folder, std::size_t block_bytes)
      : fd_(open_nameless(folder)), block_bytes_(block_bytes), buffer_(block_bytes) {
    std::memset(buffer_.words(), 0x5a, block_bytes);
    for (std::size_t at = 0; at < FILE_BYTES; at += block_bytes) write_at(at);
    if (fdatasync(fd_) != 0) fail("cannot sync a file in " + folder);
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Past the page cache where the file system can; else `forget` drops each block after it was read.
  void go_direct() { direct_ = fcntl(fd_, F_SETFL, O_DIRECT) == 0 && read_at(0); }

  bool read_at(std::size_t at) {
    const ssize_t n = pread(fd_, buffer_.words(), block_bytes_, static_cast<off_t>(at));
    if (n != static_cast<ssize_t>(block_bytes_)) {
      if (n < 0 && errno == EINVAL && fcntl(fd_, F_SETFL, 0) == 0) return false;
      fail("cannot read a file");
    }
    if (!direct_) posix_fadvise(fd_, static_cast<off_t>(at), static_cast<off_t>(block_bytes_), POSIX_FADV_DONTNEED);
    return true;
  }

  void write_at(std::size_t at) {
    buffer_.words()[0] = ++written_;  // no two blocks alike
    if (pwrite(fd_, buffer_.words(), block_bytes_, static_cast<off_t>(at)) != static_cast<ssize_t>(block_bytes_))
      fail("cannot write a file");
  }

  void sync() {
    if (fsync(fd_) != 0) fail("cannot sync a file");
  }

  std::size_t random_block() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<std::size_t>((state_ >> 33) % (FILE_BYTES / block_bytes_)) * block_bytes_;
  }

 private:
  int fd_;
  std::size_t block_bytes_;
  Memory buffer_;
  bool direct_ = false;
  uint64_t written_ = 0;
  uint64_t state_ = static_cast<uint64_t>(now_ns());  // threads go different ways
};

class Reads final : public Kernel {
 public:
  Reads(const std::string& folder, std::size_t block_bytes) : file_(folder, block_bytes) { file_.go_direct(); }
  uint64_t run(double level) override {
    return paced(level, [&] { file_.read_at(file_.random_block()); });
  }

 private:
  File file_;
};

class SyncedWrites final : public Kernel {
 public:
  SyncedWrites(const std::string& folder, std::size_t block_bytes) : file_(folder, block_bytes) {}
  uint64_t run(double level) override {
    return paced(level, [&] {
      file_.write_at(file_.random_block());
      file_.sync();
    });
  }

 private:
  File file_;
};

}  // namespace

std::unique_ptr<Kernel> make_file_reads(Role role, const std::string& folder) {
  return std::make_unique<Reads>(folder, role == Role::bubble ? BUBBLE_READ_BYTES : REPORTER_BYTES);
}

std::unique_ptr<Kernel> make_synced_writes(Role role, const std::string& folder) {
  return std::make_unique<SyncedWrites>(folder, role == Role::bubble ? BUBBLE_WRITE_BYTES : REPORTER_BYTES);
}

}  // namespace tandem::bubbles
