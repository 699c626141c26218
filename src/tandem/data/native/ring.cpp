#include "ring.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#if defined(__linux__) && __has_include(<linux/io_uring.h>) && defined(SYS_io_uring_setup)
#include <linux/io_uring.h>
#define TANDEM_IO_URING 1
#endif

namespace tandem::data {

#if defined(TANDEM_IO_URING)

namespace {

constexpr unsigned depth = 64;
constexpr uint64_t most_bytes = uint64_t{1} << 30;  // of one request to the kernel

unsigned* number_at(uint8_t* ring, unsigned offset) { return reinterpret_cast<unsigned*>(ring + offset); }

}  // namespace

std::unique_ptr<Ring> Ring::make() {
  io_uring_params asked{};
  const long file = syscall(SYS_io_uring_setup, depth, &asked);
  if (file < 0) return nullptr;
  std::unique_ptr<Ring> ring(new Ring);
  ring->owner_ = getpid();
  ring->file_ = static_cast<int>(file);
  if (!(asked.features & IORING_FEAT_SINGLE_MMAP)) return nullptr;  // Linux 5.4; reads need 5.6
  ring->queues_bytes_ = std::max(asked.sq_off.array + asked.sq_entries * sizeof(unsigned),
                                 asked.cq_off.cqes + asked.cq_entries * sizeof(io_uring_cqe));
  ring->entries_bytes_ = asked.sq_entries * sizeof(io_uring_sqe);
  const int access = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_POPULATE;
  void* const queues = mmap(nullptr, ring->queues_bytes_, access, how, ring->file_, IORING_OFF_SQ_RING);
  if (queues == MAP_FAILED) return nullptr;
  ring->queues_ = static_cast<uint8_t*>(queues);
  void* const entries = mmap(nullptr, ring->entries_bytes_, access, how, ring->file_, IORING_OFF_SQES);
  if (entries == MAP_FAILED) return nullptr;
  ring->entries_ = entries;
  ring->submit_tail_ = number_at(ring->queues_, asked.sq_off.tail);
  ring->submit_mask_ = *number_at(ring->queues_, asked.sq_off.ring_mask);
  ring->submit_array_ = number_at(ring->queues_, asked.sq_off.array);
  ring->complete_head_ = number_at(ring->queues_, asked.cq_off.head);
  ring->complete_tail_ = number_at(ring->queues_, asked.cq_off.tail);
  ring->complete_mask_ = *number_at(ring->queues_, asked.cq_off.ring_mask);
  ring->completions_ = ring->queues_ + asked.cq_off.cqes;
  return ring;
}

Ring::~Ring() {
  if (entries_) munmap(entries_, entries_bytes_);
  if (queues_) munmap(queues_, queues_bytes_);
  if (file_ >= 0) close(file_);
}

int Ring::read(const std::vector<Request>& requests, const std::function<void(size_t, int64_t)>& done) {
  std::vector<uint64_t> got(requests.size(), 0);
  std::vector<size_t> again;  // to be gone on with, after a short read
  size_t next = 0, in_flight = 0;
  unsigned waiting = 0;
  const auto submit = [&](size_t which) {
    const Request& request = requests[which];
    const unsigned tail = *submit_tail_, place = tail & submit_mask_;
    auto* const entry = static_cast<io_uring_sqe*>(entries_) + place;
    std::memset(entry, 0, sizeof *entry);
    entry->opcode = IORING_OP_READ;
    entry->fd = request.file;
    entry->addr = reinterpret_cast<uint64_t>(request.to + got[which]);
    entry->len = static_cast<uint32_t>(std::min(request.size - got[which], most_bytes));
    entry->off = request.offset + got[which];
    entry->user_data = which;
    submit_array_[place] = place;
    __atomic_store_n(submit_tail_, tail + 1, __ATOMIC_RELEASE);
    ++waiting;
    ++in_flight;
  };
  while (next < requests.size() || !again.empty() || in_flight > 0) {
    for (; in_flight < depth && !again.empty(); again.pop_back()) submit(again.back());
    for (; in_flight < depth && next < requests.size(); ++next) submit(next);
    const long entered = syscall(SYS_io_uring_enter, file_, waiting, 1u, IORING_ENTER_GETEVENTS, nullptr, 0);
    if (entered < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) return errno;
    if (entered > 0) waiting -= static_cast<unsigned>(entered);
    unsigned head = *complete_head_;
    for (; head != __atomic_load_n(complete_tail_, __ATOMIC_ACQUIRE); ++head) {
      const auto& completion = reinterpret_cast<io_uring_cqe*>(completions_)[head & complete_mask_];
      const size_t which = completion.user_data;
      const int result = completion.res;
      --in_flight;
      if (result > 0) got[which] += static_cast<uint64_t>(result);
      const bool go_on = result == -EINTR || result == -EAGAIN || (result > 0 && got[which] < requests[which].enough);
      if (go_on) {
        again.push_back(which);
      } else {
        done(which, result < 0 ? result : static_cast<int64_t>(got[which]));
      }
    }
    __atomic_store_n(complete_head_, head, __ATOMIC_RELEASE);
  }
  return 0;
}

#else

std::unique_ptr<Ring> Ring::make() { return nullptr; }
Ring::~Ring() = default;
int Ring::read(const std::vector<Request>&, const std::function<void(size_t, int64_t)>&) { return ENOSYS; }

#endif

}  // namespace tandem::data
