#include "team.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tandem::sparse {
namespace {

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// The pieces of a job and what went wrong in them; any number of threads may take them.
class Pieces {
 public:
  Pieces(int64_t count, const std::function<void(int64_t)>& work) : count_(count), work_(work) {}

  void take() {
    try {
      for (;;) {
        const int64_t piece = next_.fetch_add(1, std::memory_order_relaxed);
        if (piece >= count_) return;
        work_(piece);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_.store(count_, std::memory_order_relaxed);
    }
  }

  // Once all are done.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const int64_t count_;
  const std::function<void(int64_t)>& work_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;
};

// How an OpenMP library runs a function on several threads; null where none is loaded for all to see, as torch's is.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

Parallel openmp() {
  static std::atomic<Parallel> found{nullptr};
  if (found.load(std::memory_order_relaxed) == nullptr)
    found.store(reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel")), std::memory_order_relaxed);
  return found.load(std::memory_order_relaxed);
}

// Threads of our own. One job at a time. A worker looks for the next one for some microseconds before it goes to sleep: a
// model's layers follow one another faster than a sleeper wakes.
class Team {
 public:
  void run(int threads, Pieces& pieces) {
    const std::lock_guard<std::mutex> one_job(job_mutex_);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (workers_ < threads - 1 && start_worker()) continue;
      pieces_ = &pieces;
      seats_ = threads - 1;
      generation_.fetch_add(1, std::memory_order_release);
      if (sleepers_ > 0) wake_.notify_all();
    }
    pieces.take();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seats_ = 0;  // nobody begins any more
    }
    for (int turn = 0; busy_.load(std::memory_order_acquire) != 0; ++turn) turn < spins ? pause() : std::this_thread::yield();
  }

 private:
  static constexpr int spins = 2000;

  // False where the system gives no more threads: the others do the work.
  bool start_worker() {
    try {
      std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      return false;
    }
    ++workers_;
    return true;
  }

  void serve() {
    uint64_t seen = generation_.load(std::memory_order_acquire) - 1;  // the job it was started for is still to be seen
    for (;;) {
      for (int turn = 0; turn < spins && generation_.load(std::memory_order_acquire) == seen; ++turn) pause();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleepers_;
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        --sleepers_;
        seen = generation_.load(std::memory_order_relaxed);
        if (seats_ <= 0) continue;
        --seats_;
        busy_.fetch_add(1, std::memory_order_relaxed);
      }
      pieces_->take();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex job_mutex_, mutex_;
  std::condition_variable wake_;
  Pieces* pieces_ = nullptr;
  std::atomic<int> busy_{0};
  std::atomic<uint64_t> generation_{0};
  int workers_ = 0, sleepers_ = 0, seats_ = 0;
};

// Never destroyed: workers are detached and may outlive static objects.
Team* team = nullptr;
std::mutex team_mutex;

// A child of fork has neither our workers nor OpenMP's, and OpenMP would wait for them: it makes a team of its own.
std::atomic<bool> is_forked{false};
const int fork_is_heard = pthread_atfork([] { team_mutex.lock(); }, [] { team_mutex.unlock(); }, [] {
  team = nullptr;
  is_forked = true;
  team_mutex.unlock();
});

Team& current_team() {
  const std::lock_guard<std::mutex> lock(team_mutex);
  if (team == nullptr) team = new Team;
  return *team;
}

}  // namespace

void share_out(int threads, int64_t pieces, const std::function<void(int64_t)>& work) {
  if (threads > pieces) threads = static_cast<int>(pieces);
  Pieces left(pieces, work);
  const Parallel parallel = threads > 1 && fork_is_heard == 0 && !is_forked ? openmp() : nullptr;
  if (threads <= 1)
    left.take();
  else if (parallel != nullptr)
    parallel([](void* given) { static_cast<Pieces*>(given)->take(); }, &left, static_cast<unsigned>(threads), 0);
  else
    current_team().run(threads, left);
  left.rethrow();
}

}  // namespace tandem::sparse
