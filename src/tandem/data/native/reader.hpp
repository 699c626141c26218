// Verified reads of a space's samples: records in a mapped index say where in which shard the bytes lie.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "crew.hpp"

namespace tandem::data {

// As docs/reference/space-format.md has it, in the machine's byte order (little-endian).
struct Record {
  uint64_t checksum, place, extent;
  uint32_t shard() const { return static_cast<uint32_t>(place >> 40); }
  uint64_t offset() const { return place & ((uint64_t{1} << 40) - 1); }
  uint64_t size() const { return extent & ((uint64_t{1} << 48) - 1); }
};

// Where the records lie, and what tells whether they are what was written.
struct IndexView {
  const uint8_t* body;      // what the checks are of
  size_t body_bytes;
  const uint8_t* records;   // within the body, at the beginning of a check's block
  size_t samples;
  const uint8_t* checks;    // one checksum for each block of the body
  uint8_t* verified;        // one byte for each block: 1 once it was checked
};

enum class Fault { none, number, index, bounds, checksum, vanished, io, detached, unable };

// How a batch went; `position` is where in the batch the first fault is; of Fault::detached it is
// which shard is not open. Fault::unable: the machine cannot read in the way that was asked for.
struct Outcome {
  Fault fault = Fault::none;
  size_t position = 0;
  int error = 0;  // errno of Fault::io
};

enum class How { automatic, mapped, pread, uring, direct, none };  // none: what was asked for cannot be

// What a batch needs, copied from the index: it may not change any more once it was checked.
struct Plan {
  std::vector<Record> records;
  std::vector<int64_t> offsets;  // where each sample begins in the batch, and where the last one ends
  std::vector<uint8_t*> places;  // where each sample goes
  size_t bytes() const { return static_cast<size_t>(offsets.back()); }

  // All samples go into one buffer, one after another.
  void into(uint8_t* buffer);
};

class Reader;

// A batch that is being read by other threads, which keep what they write to alive only in `plan`: whoever began it
// must see it ended before the places go.
class Running {
 public:
  // Pieces that were not begun will not be.
  void stop() { stopped_.store(true); }

  // Does what nobody does yet, where that is a copy from memory.
  void help();

  // Whether it has ended; waits for a while.
  bool wait_for(std::chrono::milliseconds most) { return job_->wait_for(most); }

  // How it went, once it has ended.
  Outcome outcome() const { return first_; }

  const Plan& plan() const { return plan_; }

 private:
  friend class Reader;

  How way();  // by which it is read: the first that asks looks what is in the page cache
  void load(size_t piece);

  Reader* reader_ = nullptr;
  Plan plan_;
  std::vector<size_t> ends_;  // of the pieces
  How how_ = How::automatic;
  std::once_flag choosing_;
  std::atomic<bool> stopped_{false};
  std::mutex gathering_;
  Outcome first_;
  std::shared_ptr<Job> job_;
};

class Reader {
 public:
  Reader(IndexView index, size_t shards);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Opens and maps a shard's file; returns how long it is. Throws std::system_error.
  uint64_t attach(size_t shard, const std::string& path);

  // Looks up `count` samples.
  Outcome look_up(const int64_t* numbers, size_t count, Plan& plan);

  // Copies what was looked up to its places, and verifies it.
  Outcome read(const Plan& plan, size_t threads, How how);

  // The same by other threads; the reader must outlive it.
  std::shared_ptr<Running> begin(Plan plan, size_t threads, How how);

 private:
  friend class Running;

  struct Shard {
    std::atomic<bool> ready{false};
    const uint8_t* data = nullptr;
    uint64_t size = 0;
    int file = -1, direct_file = -1;
    std::string path;
  };

  bool verified(size_t number) const;
  Fault found(int64_t number, Record& record) const;
  bool warm(const Plan& plan) const;
  How chosen(const Plan& plan, How how) const;
  Outcome load(const Plan& plan, How how, size_t begin, size_t end);
  Outcome copy(const Plan& plan, size_t begin, size_t end) const;
  Outcome pread(const Plan& plan, size_t begin, size_t end) const;
  Outcome cold(const Plan& plan, bool direct);
  size_t open_direct(Shard& shard);

  const IndexView index_;
  const size_t shard_count_;
  const std::unique_ptr<Shard[]> shards_;
  bool has_files(const Plan& plan) const;

  std::mutex opening_;
  size_t open_files_ = 0, open_direct_files_ = 0;
  size_t alignment_ = 0;  // of direct reads, the widest of all shards that are open for them
};

}  // namespace tandem::data
