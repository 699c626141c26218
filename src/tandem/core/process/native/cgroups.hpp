// Control groups, v1, v2 or both side by side; without any group every method is harmless.
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>

#include "spec.hpp"

namespace keeper {

constexpr int64_t FREEZE_LIMIT_MS = 1000;
constexpr int64_t CGROUP_REMOVAL_MS = 500;
constexpr int PREPARATIONS_MAX = 50;

class Cgroups {
  public:
    // Makes the groups and sets their limits. The shared parent goes when its last group goes, which may be at any moment
    // before ours is made: its files are missing then (ENOENT), are of no device (ENODEV), or another keeper has made it
    // anew and not yet opened it to us (EACCES). So after any error everything is done again, a few times. Returns 0 or
    // errno, with the file in `where`.
    int prepare(const vector<CgroupStep>& steps, string& where) {
        for (int attempt = 0;; ++attempt) {
            parents_.clear();
            groups_.clear();
            int error = 0;
            for (size_t i = 0; i < steps.size() && error == 0; ++i) {
                where = steps[i].path;
                error = carry_out(steps[i]);
            }
            if (error == 0 || attempt == PREPARATIONS_MAX) return error;
            for (const string& group : groups_) rmdir(group.c_str());
            if (attempt > 0) pause_ms(1);
        }
    }

    // The v2 group, for clone3 (entering at birth costs nothing; moving later waits for an RCU grace period).
    int open_v2() const {
        for (const string& group : groups_)
            if (access((group + "/tasks").c_str(), F_OK) != 0) return open(group.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return -1;
    }

    // The calling process enters by itself: a thread that moves only itself ("0" into v1's tasks) takes no global lock.
    int enter(bool born_in_v2, string& where) const {
        for (const string& group : groups_) {
            where = group + "/tasks";
            bool v1 = access(where.c_str(), F_OK) == 0;
            if (!v1 && born_in_v2) continue;
            if (!v1) where = group + "/cgroup.procs";
            int error = write_file(where, "0");
            if (error != 0) return error;
        }
        return 0;
    }

    bool can_freeze() const { return !with("cgroup.freeze").empty() || !with("freezer.state").empty(); }

    // Returns true once the whole group stands still (or runs again).
    bool freeze(bool frozen) const {
        string v2 = with("cgroup.freeze"), v1 = with("freezer.state"), text;
        string file = v2.empty() ? v1 + "/freezer.state" : v2 + "/cgroup.freeze";
        string value = v2.empty() ? (frozen ? "FROZEN" : "THAWED") : (frozen ? "1" : "0");
        string told = v2.empty() ? value : frozen ? "frozen 1" : "frozen 0";
        for (int64_t limit = now_ms() + FREEZE_LIMIT_MS; now_ms() < limit; pause_ms(1)) {
            if (write_file(file, value) != 0) return false;
            if (read_file(v2.empty() ? file : v2 + "/cgroup.events", text) && text.find(told) != string::npos) return true;
        }
        return false;
    }

    bool has_quota() const { return !with("cpu.cfs_quota_us").empty() || !with("cpu.max").empty(); }

    bool set_quota(double cores_used, bool unlimited) const {
        string v2 = with("cpu.max"), quota = std::to_string(std::max(1000LL, static_cast<long long>(cores_used * 1e5)));
        if (!v2.empty()) return write_file(v2 + "/cpu.max", (unlimited ? "max" : quota) + " 100000") == 0;
        string v1 = with("cpu.cfs_quota_us");
        return write_file(v1 + "/cpu.cfs_period_us", "100000") == 0 &&
               write_file(v1 + "/cpu.cfs_quota_us", unlimited ? "-1" : quota) == 0;
    }

    bool set_cores(const vector<int>& cores) const {
        string group = with("cpuset.cpus");
        return group.empty() || write_file(group + "/cpuset.cpus", join(cores)) == 0;
    }

    void kill() const {  // at once and for all, where the kernel can
        string group = with("cgroup.kill");
        if (!group.empty()) write_file(group + "/cgroup.kill", "1");
    }

    // How many processes of the job the kernel killed because the group's memory limit was reached, and that limit.
    long long memory_kills(long long& limit_bytes) const {
        string v2 = with("memory.events"), v1 = with("memory.oom_control"), text;
        long long kills = 0;
        limit_bytes = 0;
        if (!read_file(v2.empty() ? v1 + "/memory.oom_control" : v2 + "/memory.events", text)) return 0;
        for (const string& line : split(text, '\n'))
            if (line.rfind("oom_kill ", 0) == 0) parse_number(line.substr(9), kills);
        if (read_file(v2.empty() ? v1 + "/memory.limit_in_bytes" : v2 + "/memory.max", text))
            parse_number(split(text, '\n')[0], limit_bytes);
        return kills;
    }

    void remove() const {  // what is still busy after the limit is left to the scheduler's cleaning
        int64_t limit = now_ms() + CGROUP_REMOVAL_MS;
        for (const string& group : groups_)
            while (rmdir(group.c_str()) != 0 && errno != ENOENT && now_ms() < limit) {
                remove_inner(group);
                pause_ms(1);
            }
        for (auto it = parents_.rbegin(); it != parents_.rend(); ++it) rmdir(it->c_str());
    }

  private:
    int carry_out(const CgroupStep& step) {
        if (step.kind == CgroupStep::WRITE) return write_file(step.path, step.value);
        if (step.kind == CgroupStep::TRY) return write_file(step.path, step.value), 0;
        if (mkdir(step.path.c_str(), 0755) != 0 && !(errno == EEXIST && step.kind == CgroupStep::PARENT)) return errno;
        (step.kind == CgroupStep::PARENT ? parents_ : groups_).push_back(step.path);
        return 0;
    }

    static void remove_inner(const string& group) {  // groups that the job itself made
        DIR* dir = opendir(group.c_str());
        if (dir == nullptr) return;
        while (dirent* entry = readdir(dir)) {
            if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
            string inner = group + "/" + entry->d_name;
            if (rmdir(inner.c_str()) != 0) remove_inner(inner);
        }
        closedir(dir);
    }

    string with(const char* file) const {
        for (const string& group : groups_)
            if (access((group + "/" + file).c_str(), F_OK) == 0) return group;
        return "";
    }

    vector<string> parents_, groups_;
};

}  // namespace keeper
