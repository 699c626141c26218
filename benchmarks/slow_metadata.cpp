// A file system whose metadata server is slow: shows a folder through FUSE and answers every lookup, open and stat only
// after a given time. Reading is not delayed. Speaks the kernel's protocol itself, so that little else is measured.
//
//   slow_metadata FOLDER DELAY_US DEVICE
//
// DEVICE is the number of an open file, the FUSE connection of a mount that was just made. Ends when it is unmounted, and
// writes then how many metadata requests it answered, and in how many microseconds each on average.
//
// Limits: it reads only, and folders cannot be listed. The kernel may keep what it was told for as long as it likes, so a
// folder costs one lookup, and a file one lookup and one open.

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr int threads = 16;
constexpr size_t most_bytes = 1 << 20;
constexpr uint64_t forever_s = 1'000'000;

int device;
std::chrono::microseconds delay;
std::atomic<int64_t> answered{0}, answer_ns{0};

// Paths by node number, which begins with the root's, 1.
class Nodes {
 public:
  explicit Nodes(const std::string& root) { number(root); }

  uint64_t number(const std::string& path) {
    const std::lock_guard<std::mutex> hold(lock_);
    const auto [place, fresh] = numbers_.try_emplace(path, paths_.size() + 1);
    if (fresh) paths_.push_back(path);
    return place->second;
  }

  const std::string& path(uint64_t number) {
    const std::lock_guard<std::mutex> hold(lock_);
    return paths_.at(number - 1);  // a deque: it stays where it is
  }

 private:
  std::mutex lock_;
  std::unordered_map<std::string, uint64_t> numbers_;
  std::deque<std::string> paths_;
};

void reply(uint64_t unique, int error, const void* data = nullptr, size_t size = 0) {
  fuse_out_header head{};
  head.len = static_cast<uint32_t>(sizeof head + size);
  head.error = -error;
  head.unique = unique;
  const iovec parts[2] = {{&head, sizeof head}, {const_cast<void*>(data), size}};
  (void)!writev(device, parts, size ? 2 : 1);  // fails only where nobody waits for it any more
}

void wait_since(Clock::time_point arrived) {
  std::this_thread::sleep_until(arrived + delay);
  ++answered;
  answer_ns += std::chrono::nanoseconds(Clock::now() - arrived).count();
}

fuse_attr attributes(const struct stat& status, uint64_t node) {
  fuse_attr found{};
  found.ino = node;
  found.size = static_cast<uint64_t>(status.st_size);
  found.blocks = static_cast<uint64_t>(status.st_blocks);
  found.mtime = static_cast<uint64_t>(status.st_mtim.tv_sec);
  found.mtimensec = static_cast<uint32_t>(status.st_mtim.tv_nsec);
  found.mode = status.st_mode;
  found.nlink = static_cast<uint32_t>(status.st_nlink);
  found.uid = status.st_uid;
  found.gid = status.st_gid;
  found.blksize = 4096;
  return found;
}

void begin(uint64_t unique, const fuse_init_in& asked) {
  fuse_init_out told{};
  told.major = FUSE_KERNEL_VERSION;
  told.minor = FUSE_KERNEL_MINOR_VERSION;
  told.max_readahead = asked.max_readahead;
  told.flags = asked.flags & (FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES);
  told.max_background = 64;
  told.congestion_threshold = 48;
  told.max_write = 4096;
  told.time_gran = 1;
  told.max_pages = most_bytes / 4096;
  reply(unique, 0, &told, sizeof told);
}

void look_up(Nodes& nodes, const fuse_in_header& head, const char* name, Clock::time_point arrived) {
  const std::string path = nodes.path(head.nodeid) + "/" + name;
  struct stat status {};
  const int error = lstat(path.c_str(), &status) ? errno : 0;
  fuse_entry_out told{};
  told.entry_valid = told.attr_valid = forever_s;
  if (!error) told.nodeid = nodes.number(path), told.attr = attributes(status, told.nodeid);
  wait_since(arrived);
  reply(head.unique, error, &told, error ? 0 : sizeof told);
}

void get_attributes(Nodes& nodes, const fuse_in_header& head, Clock::time_point arrived) {
  struct stat status {};
  const int error = lstat(nodes.path(head.nodeid).c_str(), &status) ? errno : 0;
  fuse_attr_out told{};
  told.attr_valid = forever_s;
  told.attr = attributes(status, head.nodeid);
  wait_since(arrived);
  reply(head.unique, error, &told, error ? 0 : sizeof told);
}

void open_file(Nodes& nodes, const fuse_in_header& head, Clock::time_point arrived) {
  const int file = open(nodes.path(head.nodeid).c_str(), O_RDONLY | O_CLOEXEC);
  const int error = file < 0 ? errno : 0;
  fuse_open_out told{};
  told.fh = static_cast<uint64_t>(file);
  told.open_flags = FOPEN_KEEP_CACHE;
  wait_since(arrived);
  reply(head.unique, error, &told, error ? 0 : sizeof told);
}

void read_file(uint64_t unique, const fuse_read_in& asked, std::vector<char>& buffer) {
  const size_t size = std::min<size_t>(asked.size, buffer.size());
  const ssize_t got = pread(static_cast<int>(asked.fh), buffer.data(), size, static_cast<off_t>(asked.offset));
  reply(unique, got < 0 ? errno : 0, buffer.data(), got < 0 ? 0 : static_cast<size_t>(got));
}

void serve(Nodes& nodes) {
  prctl(PR_SET_TIMERSLACK, 1UL);
  std::vector<char> request(most_bytes + 4096), buffer(most_bytes);
  for (;;) {
    const ssize_t got = read(device, request.data(), request.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
    if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return;  // it was unmounted
    const auto arrived = Clock::now();
    fuse_in_header head;
    std::memcpy(&head, request.data(), sizeof head);
    const char* const body = request.data() + sizeof head;
    switch (head.opcode) {
      case FUSE_INIT: begin(head.unique, *reinterpret_cast<const fuse_init_in*>(body)); break;
      case FUSE_LOOKUP: look_up(nodes, head, body, arrived); break;
      case FUSE_GETATTR: get_attributes(nodes, head, arrived); break;
      case FUSE_OPEN: open_file(nodes, head, arrived); break;
      case FUSE_READ: read_file(head.unique, *reinterpret_cast<const fuse_read_in*>(body), buffer); break;
      case FUSE_RELEASE:
        close(static_cast<int>(reinterpret_cast<const fuse_release_in*>(body)->fh));
        reply(head.unique, 0);
        break;
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT: break;  // nobody waits for an answer
      default: reply(head.unique, ENOSYS);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  Nodes nodes(argv[1]);
  delay = std::chrono::microseconds(std::atoi(argv[2]));
  device = std::atoi(argv[3]);
  std::vector<std::thread> crew;
  for (int i = 0; i < threads; ++i) crew.emplace_back([&] { serve(nodes); });
  for (std::thread& one : crew) one.join();
  const int64_t count = answered;
  std::printf("%lld %.1f\n", static_cast<long long>(count), count ? answer_ns / 1000.0 / count : 0.0);
}
