// What native code does without Python's lock.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace tandem {

// Python's lock is not held while one of these is there.
//
// A thread that wants it back once Python has begun to end is ended by Python up to 3.13: pthread_exit unwinds its stack,
// and the whole process aborts at the first function of C++ that lets nothing through, as this destructor and all of
// nanobind. So such a thread stays where it is until the process has ended, as Python itself has it from 3.14 on.
class Unlocked {
 public:
  Unlocked() noexcept : state_(PyEval_SaveThread()) {}
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

  ~Unlocked() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) pause();  // to leave this handler without passing the unwinding on would abort too
    }
  }

 private:
  PyThreadState* const state_;
};

}  // namespace tandem
