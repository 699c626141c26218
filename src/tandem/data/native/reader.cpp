#include "reader.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <system_error>

#include "crew.hpp"
#include "fault_guard.hpp"
#include "xxh3.hpp"

namespace tandem::data {
namespace {

constexpr size_t check_bytes = 24576, records_per_check = check_bytes / sizeof(Record);
constexpr size_t piece_bytes = size_t{128} << 10, ahead = 8, probes = 4;

void prefetch(const void* at) { __builtin_prefetch(at, 0, 3); }

// Cuts a batch into runs of samples of about `piece_bytes`, at least one sample each; returns their ends.
std::vector<size_t> pieces(const int64_t* offsets, size_t count) {
  std::vector<size_t> ends;
  int64_t begin = 0;
  for (size_t i = 0; i < count; ++i) {
    if (i + 1 < count && offsets[i + 1] - begin < static_cast<int64_t>(piece_bytes)) continue;
    ends.push_back(i + 1);
    begin = offsets[i + 1];
  }
  return ends;
}

}  // namespace

Reader::Reader(IndexView index, size_t shards) : index_(index), shard_count_(shards), shards_(new Shard[shards]) {}

Reader::~Reader() {
  for (size_t i = 0; i < shard_count_; ++i) {
    if (shards_[i].data) munmap(const_cast<uint8_t*>(shards_[i].data), shards_[i].size);
    if (shards_[i].file >= 0) close(shards_[i].file);
  }
}

uint64_t Reader::attach(size_t which, const std::string& path) {
  static std::mutex attaching;
  const std::lock_guard<std::mutex> hold(attaching);
  if (which >= shard_count_) throw std::out_of_range("no such shard");
  Shard& shard = shards_[which];
  if (shard.ready.load()) return shard.size;
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw std::system_error(errno, std::generic_category());
  struct stat status {};
  if (fstat(file, &status) != 0) {
    const int error = errno;
    close(file);
    throw std::system_error(error, std::generic_category());
  }
  posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
  const auto size = static_cast<uint64_t>(status.st_size);
  void* const data = size ? mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  if (data != MAP_FAILED) {
    madvise(data, size, MADV_RANDOM);
    shard.data = static_cast<const uint8_t*>(data);
  }
  shard.size = size;
  shard.file = file;
  shard.ready.store(true, std::memory_order_release);
  return size;
}

Record Reader::record(int64_t number) const {
  Record found;
  std::memcpy(&found, index_.records + static_cast<size_t>(number) * sizeof found, sizeof found);
  return found;
}

bool Reader::verified(int64_t number) {
  const size_t block = static_cast<size_t>(index_.records - index_.body) / check_bytes +
                       static_cast<size_t>(number) / records_per_check;
  if (__atomic_load_n(index_.verified + block, __ATOMIC_RELAXED)) return true;
  const size_t begin = block * check_bytes, size = std::min(check_bytes, index_.body_bytes - begin);
  uint64_t wanted;
  std::memcpy(&wanted, index_.checks + block * sizeof wanted, sizeof wanted);
  if (xxh3(index_.body + begin, size) != wanted) return false;
  __atomic_store_n(index_.verified + block, uint8_t{1}, __ATOMIC_RELAXED);
  return true;
}

Outcome Reader::measure(const int64_t* numbers, size_t count, int64_t* offsets) {
  watch_faults();
  Outcome outcome;
  volatile size_t reached = 0;
  const bool whole = guarded([&] {
    int64_t end = 0;
    offsets[0] = 0;
    for (size_t i = 0; i < count; ++i) {
      reached = i;
      const int64_t number = numbers[i];
      if (number < 0 || static_cast<size_t>(number) >= index_.samples) {
        outcome = {Fault::number, i, 0};
        return;
      }
      const size_t later = i + ahead < count ? static_cast<size_t>(numbers[i + ahead]) : 0;
      if (later < index_.samples) prefetch(index_.records + later * sizeof(Record));
      if (!verified(number)) {
        outcome = {Fault::index, i, 0};
        return;
      }
      const Record found = record(number);
      if (found.shard() >= shard_count_) {
        outcome = {Fault::bounds, i, 0};
        return;
      }
      const Shard& shard = shards_[found.shard()];
      if (!shard.ready.load(std::memory_order_acquire)) {
        outcome = {Fault::detached, found.shard(), 0};
        return;
      }
      if (found.offset() > shard.size || found.size() > shard.size - found.offset()) {
        outcome = {Fault::bounds, i, 0};
        return;
      }
      offsets[i + 1] = end += static_cast<int64_t>(found.size());
    }
  });
  return whole ? outcome : Outcome{Fault::index, reached, 0};
}

bool Reader::warm(const int64_t* numbers, size_t count) const {
  for (size_t probe = 0; probe < std::min(probes, count); ++probe) {
    const Record found = record(numbers[count * probe / probes]);
    if (found.size() == 0) continue;
    uint8_t byte;
    const iovec into{&byte, 1};
    const auto at = static_cast<off_t>(found.offset() + found.size() / 2);
    if (preadv2(shards_[found.shard()].file, &into, 1, at, RWF_NOWAIT) < 0 && errno == EAGAIN) return false;
  }
  return true;
}

Outcome Reader::copy(const int64_t* numbers, const int64_t* offsets, uint8_t* to, size_t begin, size_t end) const {
  Outcome outcome;
  volatile size_t reached = begin;
  const bool whole = guarded([&] {
    for (size_t i = begin; i < end; ++i) {
      reached = i;
      const Record found = record(numbers[i]);
      if (i + 2 < end) {
        const Record next = record(numbers[i + 2]);
        const uint8_t* const soon = shards_[next.shard()].data + next.offset();
        for (size_t line = 0; line < 512; line += 64) prefetch(soon + line);
      }
      const uint8_t* const from = shards_[found.shard()].data + found.offset();
      if (copy_xxh3(to + offsets[i], from, found.size()) != found.checksum) {
        outcome = {Fault::checksum, i, 0};
        return;
      }
    }
  });
  return whole ? outcome : Outcome{Fault::vanished, reached, 0};
}

Outcome Reader::pread(const int64_t* numbers, const int64_t* offsets, uint8_t* to, size_t begin, size_t end) const {
  for (size_t i = begin; i < end; ++i) {
    const Record found = record(numbers[i]);
    for (uint64_t done = 0; done < found.size();) {
      const auto at = static_cast<off_t>(found.offset() + done);
      const ssize_t got = ::pread(shards_[found.shard()].file, to + offsets[i] + done, found.size() - done, at);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return {Fault::io, i, errno};
      if (got == 0) return {Fault::vanished, i, 0};
      done += static_cast<uint64_t>(got);
    }
    if (xxh3(to + offsets[i], found.size()) != found.checksum) return {Fault::checksum, i, 0};
  }
  return {};
}

Outcome Reader::read(const int64_t* numbers, size_t count, const int64_t* offsets, uint8_t* to, size_t threads,
                     How how) {
  watch_faults();
  if (how == How::automatic) how = warm(numbers, count) ? How::mapped : How::pread;
  const auto load = how == How::mapped ? &Reader::copy : &Reader::pread;
  if (threads <= 1) return (this->*load)(numbers, offsets, to, 0, count);
  const std::vector<size_t> ends = pieces(offsets, count);
  std::mutex gathering;
  Outcome first;
  share_out(ends.size(), threads, [&](size_t piece) {
    const Outcome outcome = (this->*load)(numbers, offsets, to, piece ? ends[piece - 1] : 0, ends[piece]);
    if (outcome.fault == Fault::none) return;
    const std::lock_guard<std::mutex> hold(gathering);
    if (first.fault == Fault::none || outcome.position < first.position) first = outcome;
  });
  return first;
}

}  // namespace tandem::data
