// Memory bandwidth, by reads and by writes. Both stream through several times the last-level cache in bursts of
// microseconds; the dial is the part of each period of 100 microseconds that is burst. Writes go past the caches
// where the processor can (x86); elsewhere each written line is read first, as with any program's plain stores.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernel.hpp"
#include "memory.hpp"
#include "pace.hpp"

namespace tandem::bubbles {
namespace {

constexpr int64_t PERIOD_NS = 100 * MICROSECOND;
constexpr std::size_t CHUNK_WORDS = 4096 / sizeof(uint64_t);
constexpr uint64_t CHUNK_LINES = 4096 / LINE_BYTES;

uint64_t read_chunk(const uint64_t* from) {
  uint64_t sums[8] = {};
  for (std::size_t i = 0; i < CHUNK_WORDS; i += 8)
    for (int j = 0; j < 8; ++j) sums[j] += from[i + j];
  uint64_t sum = 0;
  for (const uint64_t each : sums) sum += each;
  return sum;
}

void write_chunk(uint64_t* to, uint64_t value) {
#if defined(__SSE2__)
  const __m128i pair = _mm_set1_epi64x(static_cast<long long>(value));
  for (std::size_t i = 0; i < CHUNK_WORDS; i += 2) _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), pair);
  _mm_sfence();
#else
  for (std::size_t i = 0; i < CHUNK_WORDS; ++i) to[i] = value;
#endif
}

// Where the next chunk lies, round and round.
class Round {
 public:
  explicit Round(std::size_t bytes) : memory_(bytes) {}

  uint64_t* chunk() {
    at_ += CHUNK_WORDS;
    if (at_ + CHUNK_WORDS > memory_.bytes() / sizeof(uint64_t)) at_ = 0;
    return memory_.words() + at_;
  }

 private:
  Memory memory_;
  std::size_t at_ = 0;
};

class ReadStream final : public Kernel {
 public:
  uint64_t run(double level) override {
    return duty(level, PERIOD_NS, [&] {
      sink_ = read_chunk(round_.chunk());
      return CHUNK_LINES;
    });
  }

 private:
  Round round_{stream_bytes()};
  volatile uint64_t sink_ = 0;
};

class WriteStream final : public Kernel {
 public:
  uint64_t run(double level) override {
    return duty(level, PERIOD_NS, [&] {
      write_chunk(round_.chunk(), ++value_);
      return CHUNK_LINES;
    });
  }

 private:
  Round round_{stream_bytes()};
  uint64_t value_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_read_stream() { return std::make_unique<ReadStream>(); }
std::unique_ptr<Kernel> make_write_stream() { return std::make_unique<WriteStream>(); }

}  // namespace tandem::bubbles
