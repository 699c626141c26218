#include "crew.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <system_error>
#include <thread>

namespace tandem::data {
namespace {

class Crew {
 public:
  // Has up to so many threads work at a job; false where there is none.
  bool help(const std::shared_ptr<Job>& job, size_t hands) {
    {
      const std::lock_guard<std::mutex> hold(lock_);
      try {
        for (; threads_ < hands; ++threads_) start();
      } catch (const std::system_error&) {  // no thread to be had: those there are do it all
        hands = std::min(hands, threads_);
      }
      for (size_t i = 0; i < hands; ++i) waiting_.push_back(job);
    }
    if (hands > 0) any_.notify_one();
    return hands > 0;
  }

 private:
  void start() {
    sigset_t all, before;  // signals are the interpreter's thread's; a fault still reaches the thread that makes it
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([this] { serve(); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void serve() {
    for (;;) {
      std::unique_lock<std::mutex> hold(lock_);
      any_.wait(hold, [this] { return !waiting_.empty(); });
      const std::shared_ptr<Job> job = std::move(waiting_.front());
      waiting_.pop_front();
      const bool more = !waiting_.empty();
      hold.unlock();
      if (more) any_.notify_one();  // each wakes the next: to wake a thread takes as long as to copy a small sample
      job->run();
    }
  }

  std::mutex lock_;
  std::condition_variable any_;
  std::deque<std::shared_ptr<Job>> waiting_;
  size_t threads_ = 0;
};

std::atomic<Crew*> crew{nullptr};

Crew& ours() {
  static const int forked = pthread_atfork(nullptr, nullptr, [] { crew.store(nullptr); });  // its threads are gone there
  (void)forked;
  Crew* found = crew.load();
  if (found == nullptr) {
    auto* const fresh = new Crew;  // never freed: its threads wait in it until the process ends
    if (crew.compare_exchange_strong(found, fresh)) return *fresh;
    delete fresh;
  }
  return *found;
}

}  // namespace

void Job::run() {
  size_t mine = 0;
  for (size_t piece; (piece = next_.fetch_add(1)) < pieces_; ++mine) work_(piece);
  if (mine && done_.fetch_add(mine) + mine == pieces_) {
    const std::lock_guard<std::mutex> hold(lock_);
    all_done_.notify_all();
  }
}

bool Job::wait_for(std::chrono::milliseconds most) {
  if (ended()) return true;
  std::unique_lock<std::mutex> hold(lock_);
  return all_done_.wait_for(hold, most, [this] { return ended(); });
}

void Job::wait() {
  std::unique_lock<std::mutex> hold(lock_);
  all_done_.wait(hold, [this] { return ended(); });
}

void share_out(size_t pieces, size_t threads, const std::function<void(size_t)>& work) {
  if (pieces == 0) return;
  const size_t hands = std::min(threads, pieces);
  if (hands <= 1) {
    for (size_t piece = 0; piece < pieces; ++piece) work(piece);
    return;
  }
  // A helper that comes late finds no piece left and touches nothing but the job, which it shares.
  const auto job = std::make_shared<Job>(work, pieces);
  ours().help(job, hands - 1);
  job->run();
  job->wait();
}

std::shared_ptr<Job> post(size_t pieces, size_t threads, std::function<void(size_t)> work) {
  auto job = std::make_shared<Job>(std::move(work), pieces);
  if (pieces > 0 && !ours().help(job, std::min(std::max<size_t>(threads, 1), pieces))) job->run();
  return job;
}

}  // namespace tandem::data
