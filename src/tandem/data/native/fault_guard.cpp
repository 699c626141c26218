#include "fault_guard.hpp"

#include <signal.h>

#include <mutex>

namespace tandem::data {

thread_local sigjmp_buf* detail::landing = nullptr;

namespace {

struct sigaction before;
std::mutex installing;

volatile sig_atomic_t passing_on = 0;

void on_fault(int number, siginfo_t* info, void* context) {
  if (sigjmp_buf* landing = detail::landing) siglongjmp(*landing, 1);
  const bool handled = (before.sa_flags & SA_SIGINFO) || (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN);
  if (!handled || passing_on) {  // passing on: whoever was before us raised it again, for us
    signal(number, SIG_DFL);     // the load happens again, and ends the process as it would have
    if (passing_on) raise(number);
    return;
  }
  passing_on = 1;
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(number, info, context);
  } else {
    before.sa_handler(number);
  }
  passing_on = 0;
}

}  // namespace

void watch_faults() {
  struct sigaction now;
  sigaction(SIGBUS, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) return;
  const std::lock_guard<std::mutex> hold(installing);
  sigaction(SIGBUS, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) return;
  before = now;
  struct sigaction ours {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;  // not deferred: the jump out does not unblock it
  sigemptyset(&ours.sa_mask);
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace tandem::data
