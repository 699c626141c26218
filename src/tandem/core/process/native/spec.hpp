// The spec: what to run, as whom, where, with which cores, locks, limits and groups.
#pragma once

#include <sys/resource.h>
#include <sys/stat.h>

#include "text.hpp"

namespace keeper {

struct Lock {
    string path;
    long long first = 0, count = 1;
};

struct Limit {
    int resource = 0;
    rlimit value{};
};

// Where the job is ended if no scheduler is there: the signal to save its state (0: none), SIGTERM, after the grace SIGKILL.
struct TimeLimit {
    long long run_ms = -1, grace_ms = 0, signal = 0;  // run_ms below 0: none
};

struct CgroupStep {
    enum Kind { PARENT, ENTER, WRITE, TRY } kind;
    string path, value;
};

struct Spec {
    vector<string> argv, env;
    string cwd = "/", out = "/dev/null", err = "/dev/null", core_lock;
    long long uid = -1, gid = -1, umask = -1, nice = 0;
    bool user_opens = false, out_by_umask = false, err_by_umask = false;
    vector<gid_t> groups;
    vector<int> cores;
    vector<Lock> locks;
    vector<Limit> limits;
    TimeLimit time_limit;
    vector<CgroupStep> cgroup_steps;
};

inline bool parse_lock(const string& value, Lock& lock) {  // PATH:FIRST[+COUNT]
    size_t colon = value.rfind(':');
    if (colon == string::npos) return false;
    vector<string> range = split(value.substr(colon + 1), '+');
    lock.path = value.substr(0, colon);
    return parse_number(range[0], lock.first) && lock.first >= 0 && range.size() <= 2 &&
           (range.size() == 1 || (parse_number(range[1], lock.count) && lock.count > 0));
}

inline bool parse_limit(const string& value, Limit& limit) {  // NUMBER:SOFT:HARD, -1 for no limit
    vector<string> parts = split(value, ':');
    long long number = 0, soft = 0, hard = 0;
    if (parts.size() != 3 || !parse_number(parts[0], number) || !parse_number(parts[1], soft) ||
        !parse_number(parts[2], hard))
        return false;
    limit.resource = static_cast<int>(number);
    limit.value.rlim_cur = soft < 0 ? RLIM_INFINITY : static_cast<rlim_t>(soft);
    limit.value.rlim_max = hard < 0 ? RLIM_INFINITY : static_cast<rlim_t>(hard);
    return true;
}

inline bool parse_time_limit(const string& value, TimeLimit& limit) {  // RUN_MS:GRACE_MS:SIGNAL
    vector<string> parts = split(value, ':');
    return parts.size() == 3 && parse_number(parts[0], limit.run_ms) && parse_number(parts[1], limit.grace_ms) &&
           parse_number(parts[2], limit.signal) && limit.run_ms >= 0 && limit.grace_ms >= 0 && limit.signal >= 0 &&
           limit.signal < NSIG;
}

inline bool parse_flag(const string& value, bool& flag) { return flag = value == "1", value == "0" || value == "1"; }

inline bool parse_groups(const string& value, vector<gid_t>& groups) {
    if (value.empty()) return true;
    for (const string& part : split(value, ',')) {
        long long n = 0;
        if (!parse_number(part, n) || n < 0) return false;
        groups.push_back(static_cast<gid_t>(n));
    }
    return true;
}

inline bool parse_step(CgroupStep::Kind kind, const string& value, vector<CgroupStep>& steps) {
    if (kind == CgroupStep::PARENT || kind == CgroupStep::ENTER) {
        steps.push_back({kind, value, ""});
        return !value.empty();
    }
    size_t equals = value.find('=');
    if (equals == string::npos) return false;
    steps.push_back({kind, value.substr(0, equals), value.substr(equals + 1)});
    return true;
}

inline bool parse_field(const string& key, const string& value, Spec& spec) {
    if (key == "argv") return spec.argv.push_back(value), true;
    if (key == "env") return spec.env.push_back(value), value.find('=') != string::npos;
    if (key == "cwd") return spec.cwd = value, !value.empty();
    if (key == "stdout") return spec.out = value, !value.empty();
    if (key == "stderr") return spec.err = value, !value.empty();
    if (key == "uid") return parse_number(value, spec.uid) && spec.uid >= 0;
    if (key == "gid") return parse_number(value, spec.gid) && spec.gid >= 0;
    if (key == "groups") return parse_groups(value, spec.groups);
    if (key == "open_as_user") return parse_flag(value, spec.user_opens);
    if (key == "stdout_by_umask") return parse_flag(value, spec.out_by_umask);
    if (key == "stderr_by_umask") return parse_flag(value, spec.err_by_umask);
    if (key == "cores") return parse_cores(value, spec.cores);
    if (key == "nice") return parse_number(value, spec.nice);
    if (key == "umask") return parse_number(value, spec.umask) && spec.umask >= 0 && spec.umask <= 0777;
    if (key == "core_lock") return spec.core_lock = value, !value.empty();
    if (key == "lock") return spec.locks.emplace_back(), parse_lock(value, spec.locks.back());
    if (key == "rlimit") return spec.limits.emplace_back(), parse_limit(value, spec.limits.back());
    if (key == "time_limit") return parse_time_limit(value, spec.time_limit);
    if (key == "cgroup_parent") return parse_step(CgroupStep::PARENT, value, spec.cgroup_steps);
    if (key == "cgroup") return parse_step(CgroupStep::ENTER, value, spec.cgroup_steps);
    if (key == "write") return parse_step(CgroupStep::WRITE, value, spec.cgroup_steps);
    if (key == "try") return parse_step(CgroupStep::TRY, value, spec.cgroup_steps);
    return false;
}

// Returns "" or what is wrong. The values are not repeated: they may be secrets.
inline string parse_spec(const string& content, Spec& spec) {
    size_t from = 0;
    while (from < content.size()) {
        size_t to = content.find('\0', from), equals = content.find('=', from);
        if (to == string::npos) return "the spec is cut short";
        if (equals >= to) return "the spec has a field without '='";
        string key = content.substr(from, equals - from);
        if (!parse_field(key, content.substr(equals + 1, to - equals - 1), spec)) return "the spec has a bad field " + key;
        from = to + 1;
    }
    return spec.argv.empty() || spec.argv[0].empty() ? "the spec names no program" : "";
}

// Reads the spec of the present directory and removes it: the environment may hold secrets.
inline string take_spec(Spec& spec) {
    int fd = open("spec", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return "cannot open the spec";
    struct stat info{};
    string content;
    bool own = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_uid == geteuid() && !(info.st_mode & 077);
    bool good = own && read_all(fd, content);
    close(fd);
    unlink("spec");
    if (!own) return "the spec is not a private file of this user";
    return good ? parse_spec(content, spec) : "cannot read the spec";
}

}  // namespace keeper
