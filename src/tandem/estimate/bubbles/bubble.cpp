// tandem-bubble: one antagonist or reporter, in a process of its own (tandem.estimate.bubbles starts it).
//
//     tandem-bubble bubble|reporter KIND CORE[,CORE...] FOLDER PARENT_PID     3: shared page   4: control
//
// Each message on the control descriptor is a level as a double: 0 idle, up to 1. It is also the lifeline: at its end
// the process is gone at once, as it is when its parent dies (the pipe may live on in another of the parent's children,
// the parent-death signal does not depend on it). It owns nothing that has a name, so nothing is left to remove.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "native/kernel.hpp"
#include "native/pace.hpp"
#include "native/page.hpp"

namespace tandem::bubbles {
namespace {

constexpr int PAGE_FD = 3, CONTROL_FD = 4;
constexpr int EXIT_USAGE = 64, EXIT_FAILED = 70;

pid_t parent = 0;

// The signal also comes when only the *thread* that started this process ends; then the parent is still the same.
void on_parent_death(int) {
  if (getppid() != parent) _exit(0);
}

void watch_parent() {
  struct sigaction action {};
  action.sa_handler = on_parent_death;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  signal(SIGINT, SIG_IGN);  // Ctrl-C is for the command, which ends this process
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  if (getppid() != parent) _exit(0);  // it was faster
}

struct Dial {
  std::atomic<double> level{0};
  std::mutex mutex;
  std::condition_variable changed;

  void set(double value) {
    const std::lock_guard<std::mutex> lock(mutex);
    level.store(value);
    changed.notify_all();
  }
  void wait_until_positive() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return level.load() > 0; });
  }
};

struct Job {
  Role role;
  std::string kind, folder;
  std::vector<int> cores;
  Page* page;
  Dial dial;
};

void pin(int core) {
  std::vector<cpu_set_t> sets(8);  // 8,192 cores
  const std::size_t size = sets.size() * sizeof(cpu_set_t);
  std::memset(sets.data(), 0, size);
  CPU_SET_S(static_cast<std::size_t>(core), size, sets.data());
  if (sched_setaffinity(0, size, sets.data()) != 0)
    throw std::system_error(errno, std::generic_category(), "cannot run on core " + std::to_string(core));
}

void work(Job& job, Slot& slot, int core) {
  pin(core);
  prctl(PR_SET_TIMERSLACK, 1);  // pauses end when they should
  const auto kernel = make(job.kind, job.role, job.folder);
  uint64_t count = 0;
  publish(slot, count, now_ns(), IDLE);
  while (true) {
    job.dial.wait_until_positive();
    publish(slot, count, now_ns(), RUNNING);
    for (double level; (level = job.dial.level.load(std::memory_order_relaxed)) > 0;) {
      count += kernel->run(level);
      publish(slot, count, now_ns(), RUNNING);
    }
    publish(slot, count, now_ns(), IDLE);
  }
}

[[noreturn]] void give_up(Page& page, const char* why) {
  snprintf(page.failure, sizeof page.failure, "%s", why);
  _exit(EXIT_FAILED);
}

void work_or_give_up(Job& job, Slot& slot, int core) {
  try {
    work(job, slot, core);
  } catch (const std::exception& error) {
    give_up(*job.page, error.what());
  }
}

void follow_control(Dial& dial) {
  double level = 0;
  while (true) {
    const ssize_t n = read(CONTROL_FD, &level, sizeof level);
    if (n == static_cast<ssize_t>(sizeof level)) dial.set(level);
    else if (n >= 0 || errno != EINTR) _exit(0);
  }
}

std::vector<int> parse_cores(const std::string& text) {
  std::vector<int> cores;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) cores.push_back(std::atoi(word.c_str()));
  return cores;
}

int run(int argc, char** argv) {
  if (argc != 6) return EXIT_USAGE;
  parent = std::atoi(argv[5]);
  watch_parent();
  void* at = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, PAGE_FD, 0);
  if (at == MAP_FAILED) return EXIT_USAGE;
  Job job{std::string(argv[1]) == "bubble" ? Role::bubble : Role::reporter, argv[2], argv[4], parse_cores(argv[3]),
          static_cast<Page*>(at), {}};
  const auto each = static_cast<std::size_t>(threads_per_core(job.kind, job.role));
  if (job.cores.empty() || job.cores.size() * each > MOST_THREADS) return EXIT_USAGE;
  try {
    pin(job.cores[0]);
    for (std::size_t i = 0; i < job.cores.size() * each; ++i)
      std::thread(work_or_give_up, std::ref(job), std::ref(job.page->slots[i]), job.cores[i / each]).detach();
  } catch (const std::exception& error) {
    give_up(*job.page, error.what());
  }
  follow_control(job.dial);
  return 0;
}

}  // namespace
}  // namespace tandem::bubbles

int main(int argc, char** argv) { return tandem::bubbles::run(argc, argv); }
