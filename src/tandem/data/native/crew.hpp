// A few threads that wait for work, shared by all readers of the process.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>

namespace tandem::data {

// Work in pieces that several threads take one after another.
class Job {
 public:
  Job(std::function<void(size_t)> work, size_t pieces) : work_(std::move(work)), pieces_(pieces) {}

  // Does pieces that nobody does yet, until there is none left.
  void run();

  // Waits until all are done; false where they are not in time.
  bool wait_for(std::chrono::milliseconds most);
  void wait();

 private:
  bool ended() const { return done_.load() == pieces_; }

  const std::function<void(size_t)> work_;
  const size_t pieces_;
  std::atomic<size_t> next_{0}, done_{0};
  std::mutex lock_;
  std::condition_variable all_done_;
};

// Calls work(0) ... work(pieces - 1), each once, on up to `threads` threads, the caller's among them; returns when all
// are done. `work` must not throw. After a fork the child starts threads of its own.
void share_out(size_t pieces, size_t threads, const std::function<void(size_t)>& work);

// The same without the caller's thread and without waiting. Where no thread is to be had, all is done at the return.
std::shared_ptr<Job> post(size_t pieces, size_t threads, std::function<void(size_t)> work);

}  // namespace tandem::data
