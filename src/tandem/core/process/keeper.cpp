// tandem-keeper: the parent of one job attempt.
//
// The scheduler never signals a job by its process id: it asks this process, which is the job's parent, so that an id
// that was given to somebody else can never be hit. The keeper outlives the scheduler, pins and limits the job before
// it executes, and writes its true end into a journal. Protocol, journal and spec: docs/reference/keeper.md.
//
//     tandem-keeper ATTEMPT_DIR [CONTROL_FD]
//
// One translation unit that needs libc only (native/*.hpp, one concept each). Built static, it starts in well under a
// millisecond: g++ -std=c++17 -O2 -static keeper.cpp -o tandem-keeper

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native/supervise.hpp"

namespace keeper {

void close_from(int first, int keep) {
    if (keep > first) syscall(SYSCALL_CLOSE_RANGE, first, keep - 1, 0);
    if (syscall(SYSCALL_CLOSE_RANGE, std::max(first, keep + 1), ~0U, 0) == 0) return;
    for (int fd : numeric_entries("/proc/self/fd"))  // a kernel before 5.9
        if (fd >= first && fd != keep) close(fd);
}

// Alone in a session of its own, with nothing of the scheduler's but the control socket.
bool stand_alone(int control) {
    setsid();
    signal(SIGCHLD, SIG_DFL);  // an inherited "ignore" would lose the exit status
    for (int number : {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXFSZ}) signal(number, SIG_IGN);
    int null = open("/dev/null", O_RDWR);
    if (null < 0) return false;
    for (int fd : {0, 1, 2}) dup2(null, fd);
    close_from(3, control);
    if (control >= 0 && fcntl(control, F_SETFD, FD_CLOEXEC) != 0) return false;
    return prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
}

string claim_line() {
    Process self;
    string boot;
    look_at(getpid(), self);
    if (!read_file("/proc/sys/kernel/random/boot_id", boot)) boot = "unknown";
    boot = boot.substr(0, boot.find('\n'));
    return "claim " + std::to_string(getpid()) + " " + std::to_string(self.start) + " " + boot + " " + wall_clock();
}

int keep(const char* attempt_dir, int control_fd) {
    if (!stand_alone(control_fd) || chdir(attempt_dir) != 0) return EXIT_USAGE;
    crash_if("before-claim");
    Journal journal;
    if (int code = journal.claim(claim_line())) return code;
    crash_if("after-claim");
    Control control(control_fd);
    control.listen_here();
    Spec spec;
    LockFiles locks;
    string wrong = take_spec(spec), busy = wrong.empty() ? acquire_all(spec, locks) : "";
    Supervisor supervisor(spec, journal, locks, control);
    if (!wrong.empty()) return supervisor.end_early("exec-failed " + std::to_string(EINVAL) + " " + wrong);
    return busy.empty() ? supervisor.run() : supervisor.end_early("busy " + busy);
}

}  // namespace keeper

int main(int argc, char** argv) {
    long long control = -1;
    bool understood = argc == 2 || (argc == 3 && keeper::parse_number(argv[2], control) && control >= 3 && control < INT_MAX);
    return understood ? keeper::keep(argv[1], static_cast<int>(control)) : keeper::EXIT_USAGE;
}
