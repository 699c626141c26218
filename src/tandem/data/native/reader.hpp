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

class Reader {
 public:
  Reader(IndexView index, size_t shards);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Opens and maps a shard's file; returns how long it is. Throws std::system_error.
  uint64_t attach(size_t shard, const std::string& path);

  // Where each of `count` samples would begin and the last would end: count + 1 offsets.
  Outcome measure(const int64_t* numbers, size_t count, int64_t* offsets);

  // Copies what was measured to `to`, and verifies it.
  Outcome read(const int64_t* numbers, size_t count, const int64_t* offsets, uint8_t* to, size_t threads, How how);

 private:
  struct Shard {
    std::atomic<bool> ready{false};
    const uint8_t* data = nullptr;
    uint64_t size = 0;
    int file = -1;
  };

  Record record(int64_t number) const;
  bool verified(int64_t number);
  bool warm(const int64_t* numbers, size_t count) const;
  Outcome copy(const int64_t* numbers, const int64_t* offsets, uint8_t* to, size_t begin, size_t end) const;
  Outcome pread(const int64_t* numbers, const int64_t* offsets, uint8_t* to, size_t begin, size_t end) const;

  const IndexView index_;
  const size_t shard_count_;
  const std::unique_ptr<Shard[]> shards_;
};

}  // namespace tandem::data
