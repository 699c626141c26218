#include "team.hpp"

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

// One job at a time. A worker looks for the next one for some microseconds before it goes to sleep: a model's layers
// follow one another faster than a sleeper wakes.
class Team {
 public:
  void run(int threads, int64_t pieces, const std::function<void(int64_t)>& work) {
    const std::lock_guard<std::mutex> one_job(job_mutex_);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (workers_ < threads - 1 && start_worker()) continue;
      work_ = &work;
      pieces_ = pieces;
      next_.store(0, std::memory_order_relaxed);
      seats_ = threads - 1;
      error_ = nullptr;
      generation_.fetch_add(1, std::memory_order_release);
      if (sleepers_ > 0) wake_.notify_all();
    }
    take_pieces();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seats_ = 0;  // nobody begins any more
    }
    for (int turn = 0; busy_.load(std::memory_order_acquire) != 0; ++turn) turn < spins ? pause() : std::this_thread::yield();
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = nullptr;
    if (error_) std::rethrow_exception(error_);
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
      take_pieces();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  void take_pieces() {
    try {
      for (;;) {
        const int64_t piece = next_.fetch_add(1, std::memory_order_relaxed);
        if (piece >= pieces_) return;
        (*work_)(piece);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
      next_.store(pieces_, std::memory_order_relaxed);
    }
  }

  std::mutex job_mutex_, mutex_, error_mutex_;
  std::condition_variable wake_;
  const std::function<void(int64_t)>* work_ = nullptr;
  int64_t pieces_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};
  std::atomic<uint64_t> generation_{0};
  int workers_ = 0, sleepers_ = 0, seats_ = 0;
  std::exception_ptr error_;
};

// Never destroyed: workers are detached and may outlive static objects. A child of fork has no workers: it forgets
// the parent's team.
Team* team = nullptr;
std::once_flag fork_handler;
std::mutex team_mutex;

Team& current_team() {
  std::call_once(fork_handler, [] {
    pthread_atfork([] { team_mutex.lock(); }, [] { team_mutex.unlock(); },
                   [] { team = nullptr; team_mutex.unlock(); });
  });
  const std::lock_guard<std::mutex> lock(team_mutex);
  if (team == nullptr) team = new Team;
  return *team;
}

}  // namespace

void share_out(int threads, int64_t pieces, const std::function<void(int64_t)>& work) {
  if (threads > pieces) threads = static_cast<int>(pieces);
  if (threads <= 1) {
    for (int64_t piece = 0; piece < pieces; ++piece) work(piece);
    return;
  }
  current_team().run(threads, pieces, work);
}

}  // namespace tandem::sparse
