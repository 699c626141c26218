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

#include "cold.hpp"
#include "crew.hpp"
#include "fault_guard.hpp"
#include "xxh3.hpp"

namespace tandem::data {
namespace {

constexpr size_t check_bytes = 24576, records_per_check = check_bytes / sizeof(Record);
constexpr int64_t piece_bytes = 128 << 10;
constexpr size_t most_files = 512;  // kept open; of further shards there is only the mapping
constexpr size_t ahead = 8, probes = 4, first_lines = 512;

void prefetch(const void* at) { __builtin_prefetch(at, 0, 3); }

// Cuts a batch into runs of samples of about `piece_bytes`, at least one sample each; returns their ends.
std::vector<size_t> pieces(const std::vector<int64_t>& offsets) {
  std::vector<size_t> ends;
  int64_t begin = 0;
  for (size_t end = 1; end < offsets.size(); ++end) {
    if (end + 1 < offsets.size() && offsets[end] - begin < piece_bytes) continue;
    ends.push_back(end);
    begin = offsets[end];
  }
  return ends;
}

// Whether a mapped page is in memory; true also where the kernel does not tell.
bool resident(const uint8_t* at) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  unsigned char told = 1;
  void* const begin = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(at) / page * page);
  return mincore(begin, 1, &told) != 0 || (told & 1);
}

}  // namespace

void Plan::into(uint8_t* buffer) {
  places.resize(records.size());
  for (size_t i = 0; i < places.size(); ++i) places[i] = buffer + offsets[i];
}

Reader::Reader(IndexView index, size_t shards) : index_(index), shard_count_(shards), shards_(new Shard[shards]) {}

Reader::~Reader() {
  for (size_t i = 0; i < shard_count_; ++i) {
    if (shards_[i].data) munmap(const_cast<uint8_t*>(shards_[i].data), shards_[i].size);
    for (int file : {shards_[i].file, shards_[i].direct_file}) {
      if (file >= 0) close(file);
    }
  }
}

uint64_t Reader::attach(size_t which, const std::string& path) {
  const std::lock_guard<std::mutex> hold(opening_);
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
  if (size > 0 && !shard.data) {
    const int error = errno;
    close(file);
    throw std::system_error(error, std::generic_category());
  }
  shard.size = size;
  shard.path = path;
  if (open_files_ < most_files) {
    shard.file = file;
    ++open_files_;
  } else {
    close(file);
  }
  shard.ready.store(true, std::memory_order_release);
  return size;
}

bool Reader::verified(size_t number) const {
  const size_t block = static_cast<size_t>(index_.records - index_.body) / check_bytes + number / records_per_check;
  if (__atomic_load_n(index_.verified + block, __ATOMIC_RELAXED)) return true;
  const size_t begin = block * check_bytes, size = std::min(check_bytes, index_.body_bytes - begin);
  uint64_t wanted;
  std::memcpy(&wanted, index_.checks + block * sizeof wanted, sizeof wanted);
  if (xxh3(index_.body + begin, size) != wanted) return false;
  __atomic_store_n(index_.verified + block, uint8_t{1}, __ATOMIC_RELAXED);
  return true;
}

Fault Reader::found(int64_t number, Record& record) const {
  if (number < 0 || static_cast<size_t>(number) >= index_.samples) return Fault::number;
  if (!verified(static_cast<size_t>(number))) return Fault::index;
  std::memcpy(&record, index_.records + static_cast<size_t>(number) * sizeof record, sizeof record);
  if (record.shard() >= shard_count_) return Fault::bounds;
  const Shard& shard = shards_[record.shard()];
  if (!shard.ready.load(std::memory_order_acquire)) return Fault::detached;
  const bool inside = record.offset() <= shard.size && record.size() <= shard.size - record.offset();
  return inside ? Fault::none : Fault::bounds;
}

Outcome Reader::look_up(const int64_t* numbers, size_t count, Plan& plan) {
  watch_faults();
  plan.records.resize(count);
  plan.offsets.resize(count + 1);
  Fault fault = Fault::none;
  volatile size_t reached = 0;
  const bool whole = guarded([&] {
    int64_t end = plan.offsets[0] = 0;
    for (size_t i = 0; i < count; ++i) {
      reached = i;
      const size_t later = i + ahead < count ? static_cast<size_t>(numbers[i + ahead]) : 0;
      if (later < index_.samples) prefetch(index_.records + later * sizeof(Record));
      fault = found(numbers[i], plan.records[i]);
      if (fault != Fault::none) return;
      plan.offsets[i + 1] = end += static_cast<int64_t>(plan.records[i].size());
    }
  });
  if (!whole) return {Fault::index, reached, 0};
  if (fault == Fault::detached) return {fault, plan.records[reached].shard(), 0};
  return {fault, reached, 0};
}

bool Reader::has_files(const Plan& plan) const {
  if (shard_count_ <= most_files) return true;
  return std::all_of(plan.records.begin(), plan.records.end(),
                     [this](const Record& record) { return shards_[record.shard()].file >= 0; });
}

bool Reader::warm(const Plan& plan) const {
  const size_t count = plan.records.size();
  for (size_t probe = 0; probe < std::min(probes, count); ++probe) {
    const Record& record = plan.records[count * probe / probes];
    if (record.size() == 0) continue;
    uint8_t byte;
    const iovec into{&byte, 1};
    const uint64_t at = record.offset() + record.size() / 2;
    const Shard& shard = shards_[record.shard()];
    if (preadv2(shard.file, &into, 1, static_cast<off_t>(at), RWF_NOWAIT) >= 0) continue;
    if (errno == EAGAIN || (errno == EOPNOTSUPP && !resident(shard.data + at))) return false;  // FUSE cannot be asked
  }
  return true;
}

Outcome Reader::copy(const Plan& plan, size_t begin, size_t end) const {
  Fault fault = Fault::none;
  volatile size_t reached = begin;
  const bool whole = guarded([&] {
    for (size_t i = begin; i < end; ++i) {
      reached = i;
      if (i + 1 < end) {
        const Record& next = plan.records[i + 1];
        const uint8_t* const soon = shards_[next.shard()].data + next.offset();
        for (size_t line = 0; line < std::min<size_t>(first_lines, next.size()); line += 64) prefetch(soon + line);
      }
      const Record& record = plan.records[i];
      const uint8_t* const from = shards_[record.shard()].data + record.offset();
      if (copy_xxh3(plan.places[i], from, record.size()) != record.checksum) {
        fault = Fault::checksum;
        return;
      }
    }
  });
  return {whole ? fault : Fault::vanished, reached, 0};
}

Outcome Reader::pread(const Plan& plan, size_t begin, size_t end) const {
  for (size_t i = begin; i < end; ++i) {
    const Record& record = plan.records[i];
    uint8_t* const target = plan.places[i];
    for (uint64_t done = 0; done < record.size();) {
      const auto at = static_cast<off_t>(record.offset() + done);
      const ssize_t got = ::pread(shards_[record.shard()].file, target + done, record.size() - done, at);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return {Fault::io, i, errno};
      if (got == 0) return {Fault::vanished, i, 0};
      done += static_cast<uint64_t>(got);
    }
    if (xxh3(target, record.size()) != record.checksum) return {Fault::checksum, i, 0};
  }
  return {};
}

size_t Reader::open_direct(Shard& shard) {
  const std::lock_guard<std::mutex> hold(opening_);
  if (shard.direct_file < 0) {
    if (open_direct_files_ >= most_files) return 0;
    const int file = open(shard.path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    const size_t alignment = file < 0 ? 0 : direct_alignment(file);
    if (alignment == 0) {
      if (file >= 0) close(file);
      return 0;
    }
    alignment_ = std::max(alignment_, alignment);
    shard.direct_file = file;
    ++open_direct_files_;
  }
  return alignment_;
}

Outcome Reader::cold(const Plan& plan, bool direct) {
  std::vector<Wanted> wanted;
  wanted.reserve(plan.records.size());
  size_t alignment = 0;
  for (size_t i = 0; i < plan.records.size(); ++i) {
    const Record& record = plan.records[i];
    Shard& shard = shards_[record.shard()];
    if (direct && (alignment = open_direct(shard)) == 0) return {Fault::unable, i, 0};
    const int file = direct ? shard.direct_file : shard.file;
    wanted.push_back({file, record.offset(), record.size(), record.checksum, plan.places[i]});
  }
  return read_cold(wanted, alignment);
}

How Reader::chosen(const Plan& plan, How how) const {
  const bool files = how == How::mapped || has_files(plan);
  if (how != How::automatic) return files ? how : How::none;
  return !files || warm(plan) ? How::mapped : has_io_uring() ? How::uring : How::pread;
}

Outcome Reader::load(const Plan& plan, How how, size_t begin, size_t end) {
  switch (how) {
    case How::uring:
    case How::direct: return cold(plan, how == How::direct);  // all at once
    case How::mapped: return copy(plan, begin, end);
    case How::pread: return pread(plan, begin, end);
    default: return {Fault::unable, 0, 0};
  }
}

Outcome Reader::read(const Plan& plan, size_t threads, How how) {
  watch_faults();
  how = chosen(plan, how);
  const bool whole = threads <= 1 || plan.records.size() <= 1 || (how != How::mapped && how != How::pread);
  if (whole) return load(plan, how, 0, plan.records.size());
  const std::vector<size_t> ends = pieces(plan.offsets);
  std::mutex gathering;
  Outcome first;
  share_out(ends.size(), threads, [&](size_t piece) {
    const Outcome outcome = load(plan, how, piece ? ends[piece - 1] : 0, ends[piece]);
    if (outcome.fault == Fault::none) return;
    const std::lock_guard<std::mutex> hold(gathering);
    if (first.fault == Fault::none || outcome.position < first.position) first = outcome;
  });
  return first;
}

std::shared_ptr<Running> Reader::begin(Plan plan, size_t threads, How how) {
  watch_faults();
  auto running = std::make_shared<Running>();
  Running* const batch = running.get();  // not shared with the job, which is the batch's own
  batch->reader_ = this;
  batch->plan_ = std::move(plan);
  batch->ends_ = pieces(batch->plan_.offsets);
  batch->how_ = how;
  batch->job_ = post(batch->ends_.size(), threads, [batch](size_t piece) { batch->load(piece); });
  return running;
}

How Running::way() {
  std::call_once(choosing_, [this] { how_ = reader_->chosen(plan_, how_); });
  return how_;
}

void Running::help() {
  if (way() == How::mapped) job_->run();
}

void Running::load(size_t piece) {
  if (stopped_.load()) return;
  const How how = way();
  const bool whole = how != How::mapped && how != How::pread;  // by whoever has the first piece
  if (whole && piece > 0) return;
  const size_t begin = piece ? ends_[piece - 1] : 0, end = whole ? plan_.records.size() : ends_[piece];
  const Outcome outcome = reader_->load(plan_, how, begin, end);
  if (outcome.fault == Fault::none) return;
  const std::lock_guard<std::mutex> hold(gathering_);
  if (first_.fault == Fault::none || outcome.position < first_.position) first_ = outcome;
}

}  // namespace tandem::data
