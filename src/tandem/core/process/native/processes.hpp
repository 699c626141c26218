// The job's processes: finding all of them, and signalling or pinning exactly them.
#pragma once

#include <dirent.h>
#include <sched.h>
#include <sys/syscall.h>

#include <map>
#include <utility>

#include "text.hpp"

namespace keeper {

// By number (the same on every architecture): the headers of an older system may not know them.
constexpr long SYSCALL_PIDFD_SEND_SIGNAL = 424;
constexpr long SYSCALL_PIDFD_OPEN = 434;
constexpr long SYSCALL_CLONE3 = 435;
constexpr long SYSCALL_CLOSE_RANGE = 436;

struct Process {
    pid_t pid = 0, parent = 0;
    char state = '?';
    unsigned long long start = 0;  // clock ticks since boot: with the pid, a name that is never given twice
};

inline bool look_at(pid_t pid, Process& process) {
    string stat;
    if (!read_file("/proc/" + std::to_string(pid) + "/stat", stat)) return false;
    size_t name_end = stat.rfind(')');
    if (name_end == string::npos) return false;
    process.pid = pid;
    return sscanf(stat.c_str() + name_end + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                  &process.state, &process.parent, &process.start) == 3;
}

inline vector<pid_t> numeric_entries(const string& directory) {
    vector<pid_t> found;
    DIR* dir = opendir(directory.c_str());
    if (dir == nullptr) return found;
    long long n = 0;
    while (dirent* entry = readdir(dir))
        if (parse_number(entry->d_name, n)) found.push_back(static_cast<pid_t>(n));
    closedir(dir);
    return found;
}

// Every process below this one that still lives. As the subreaper, the keeper is an ancestor of everything the job
// ever forks, also of what called setsid and forked twice.
inline vector<Process> descendants() {
    std::multimap<pid_t, Process> children;
    Process process;
    for (pid_t pid : numeric_entries("/proc"))
        if (look_at(pid, process)) children.emplace(process.parent, process);
    vector<Process> found;
    vector<pid_t> todo{getpid()};
    while (!todo.empty()) {
        auto range = children.equal_range(todo.back());
        todo.pop_back();
        for (auto it = range.first; it != range.second; ++it) {
            todo.push_back(it->first == it->second.pid ? getpid() : it->second.pid);
            if (it->second.state != 'Z' && it->second.state != 'X') found.push_back(it->second);
        }
        children.erase(range.first, range.second);
    }
    return found;
}

// Signals exactly this process: the pidfd pins whoever has the pid now, and the start time says whether it is the one.
inline bool signal_process(const Process& process, int signal) {
    int fd = static_cast<int>(syscall(SYSCALL_PIDFD_OPEN, process.pid, 0));
    if (fd < 0) return errno == ENOSYS && kill(process.pid, signal) == 0;
    Process present;
    bool same = look_at(process.pid, present) && present.start == process.start;
    bool sent = same && syscall(SYSCALL_PIDFD_SEND_SIGNAL, fd, signal, nullptr, 0) == 0;
    close(fd);
    return sent;
}

// Stops everything: repeats until a look finds nobody who has not been told (a process may fork while we look).
inline vector<Process> stop_all() {
    std::map<std::pair<pid_t, unsigned long long>, Process> told;
    for (bool more = true; more;) {
        more = false;
        for (const Process& process : descendants()) {
            bool fresh = told.insert({{process.pid, process.start}, process}).second;
            more |= fresh;
            if (fresh) signal_process(process, SIGSTOP);
        }
    }
    vector<Process> members;
    for (const auto& member : told) members.push_back(member.second);
    return members;
}

inline void continue_all() {
    for (const Process& process : descendants()) signal_process(process, SIGCONT);
}

// A fork whose child is born in the v2 group `directory`: moving it there later would wait for an RCU grace period.
inline pid_t fork_into(int directory) {
    struct {  // the first version of the kernel's struct clone_args that knows cgroups
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
    } arguments{};
    arguments.flags = 0x200000000ULL;  // CLONE_INTO_CGROUP
    arguments.exit_signal = SIGCHLD;
    arguments.cgroup = static_cast<uint64_t>(directory);
    return static_cast<pid_t>(syscall(SYSCALL_CLONE3, &arguments, sizeof arguments));
}

inline bool set_affinity(pid_t pid, const vector<int>& cores) {
    cpu_set_t mask[8];  // 8192 processors
    memset(mask, 0, sizeof mask);
    for (int core : cores) CPU_SET_S(static_cast<size_t>(core), sizeof mask, mask);
    return sched_setaffinity(pid, sizeof mask, mask) == 0;
}

// Pins every thread of the tree; the job itself must move, the rest may be gone or of another user. A thread born meanwhile inherits either mask, so it is done until nothing is new.
inline bool pin_all(pid_t job, const vector<int>& cores) {
    std::set<pid_t> done;
    bool good = true;
    for (bool more = true; more;) {
        more = false;
        for (const Process& process : descendants())
            for (pid_t thread : numeric_entries("/proc/" + std::to_string(process.pid) + "/task"))
                if (done.insert(thread).second) {
                    more = true;
                    good &= set_affinity(thread, cores) || thread != job;
                }
    }
    return good;
}

}  // namespace keeper
