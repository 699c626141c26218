// Verified reads of a space's samples: records in a mapped index say where in which shard the bytes lie.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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

enum class Fault { none, number, index, bounds, checksum, vanished, io, detached };

// How a batch went; `position` is where in the batch (of Fault::detached: which shard) the first fault is.
struct Outcome {
  Fault fault = Fault::none;
  size_t position = 0;
  int error = 0;  // errno of Fault::io
};

enum class How { automatic, mapped, pread };

// What a batch needs, copied from the index: it may not change any more once it was checked.
struct Plan {
  std::vector<Record> records;
  std::vector<int64_t> offsets;  // where each sample begins in the batch, and where the last one ends
  size_t bytes() const { return static_cast<size_t>(offsets.back()); }
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

  // Copies what was looked up to `to`, and verifies it.
  Outcome read(const Plan& plan, uint8_t* to, size_t threads, How how) const;

 private:
  struct Shard {
    std::atomic<bool> ready{false};
    const uint8_t* data = nullptr;
    uint64_t size = 0;
    int file = -1;
  };

  bool verified(size_t number) const;
  Fault found(int64_t number, Record& record) const;
  bool warm(const Plan& plan) const;
  Outcome copy(const Plan& plan, uint8_t* to, size_t begin, size_t end) const;
  Outcome pread(const Plan& plan, uint8_t* to, size_t begin, size_t end) const;

  const IndexView index_;
  const size_t shard_count_;
  const std::unique_ptr<Shard[]> shards_;
};

}  // namespace tandem::data
