// What holds a running job back: suspension, throttling, the cores it may use.

#pragma once

#include <iterator>

#include "cgroups.hpp"
#include "locks.hpp"
#include "processes.hpp"

namespace keeper {

constexpr int64_t DUTY_PERIOD_MS = 100;

// By cgroup where there is one, by SIGSTOP and SIGCONT where not. Every command returns "" or why it failed.
class Restraint {
  public:
    Restraint(const Spec& spec, Cgroups& cgroups, LockFiles& locks)
        : cgroups_(cgroups), locks_(locks), cores_(spec.cores), core_lock_(spec.core_lock) {}

    // A suspended job gives its cores to others: their locks go with it, and come back before it runs again.
    string suspend() {
        ran_ms_ = ran_ms();
        suspended_ = true;
        if (cgroups_.can_freeze()) {
            if (!cgroups_.freeze(true)) return "not everything is frozen yet";
        } else {
            stop_all();
            stopped_ = true;
        }
        unlock(cores_);
        holding_ = false;
        return "";
    }

    string resume() {
        if (!holding_) {
            string busy = lock(cores_);
            if (!busy.empty()) return "busy " + busy;
            holding_ = true;
        }
        return thaw();
    }

    // Let it run without a claim on its cores, since it is to end.
    string thaw() {
        if (suspended_ && cgroups_.can_freeze() && !cgroups_.freeze(false)) return "the cgroup does not thaw";
        if (stopped_) continue_all();
        ran_ms_ = ran_ms();
        runs_since_ms_ = now_ms();
        suspended_ = stopped_ = false;
        duty_at_ = now_ms() + run_ms();
        return "";
    }

    // Returns "" or which of its locks somebody else has taken.
    string renew_locks() { return locks_.renew(); }

    bool held_back() const { return suspended_ || throttle_ < 1; }

    // No scheduler is there to lift what holds the job back in favour of others: lifted once no other job of anybody
    // holds a core. Returns whether a suspended job goes on.
    bool lift() {
        if (!held_back()) return false;
        if (!core_lock_.empty() && locks_.others_hold(core_lock_)) return false;
        if (throttle_ < 1) throttle("1");
        return suspended_ && resume().empty();
    }

    string throttle(const string& argument) {
        char* end = nullptr;
        double fraction = strtod(argument.c_str(), &end);
        if (argument.empty() || *end != 0 || !(fraction > 0 && fraction <= 1)) return "a fraction is above 0 and at most 1";
        throttle_ = fraction;
        if (cgroups_.has_quota()) return apply_quota() ? "" : "the cpu quota cannot be set";
        duty_on_ = fraction < 1;
        duty_at_ = now_ms();
        if (!duty_on_ && stopped_ && !suspended_) thaw();
        return "";
    }

    // The new cores are locked before the job moves, the old ones released after.
    string pin(pid_t job, const string& argument) {
        vector<int> cores, fresh, left;
        if (!parse_cores(argument, cores)) return "cores are numbers with commas: 0,3";
        vector<int> held = holding_ ? cores_ : vector<int>{};
        std::set_difference(cores.begin(), cores.end(), held.begin(), held.end(), std::back_inserter(fresh));
        std::set_difference(held.begin(), held.end(), cores.begin(), cores.end(), std::back_inserter(left));
        string busy = lock(fresh);
        bool moved = busy.empty() && cgroups_.set_cores(cores) && pin_all(job, cores);
        if (!moved && busy.empty()) {
            if (!cores_.empty()) cgroups_.set_cores(cores_), pin_all(job, cores_);
            unlock(fresh);
        }
        if (!moved) return busy.empty() ? "the cores cannot be used" : "busy " + busy;
        unlock(left);
        holding_ = true;
        cores_ = cores;
        return throttle_ < 1 && cgroups_.has_quota() && !apply_quota() ? "the cpu quota cannot be set" : "";
    }

    // A frozen v1 group acts on a signal only once thawed; so this follows the signal.
    void let_die() {
        if (suspended_ && cgroups_.can_freeze()) cgroups_.freeze(false);
        suspended_ = duty_on_ = false;
    }

    int64_t due_ms() const { return duty_on_ && !suspended_ ? duty_at_ : INT64_MAX; }

    // Without a cpu cgroup: run for a part of each period, stand still for the rest. Looking up the whole tree takes
    // at most 1 % of the time; between two looks the known members and the process group are stopped and continued.
    void duty_turn(pid_t job) {
        if (stopped_) {
            for (const Process& member : duty_members_) signal_process(member, SIGCONT);
        } else if (now_ms() >= duty_look_at_) {
            int64_t before = now_ms();
            duty_members_ = stop_all();
            duty_look_at_ = now_ms() + 100 * (now_ms() - before);
        } else {
            for (const Process& member : duty_members_) signal_process(member, SIGSTOP);
            kill(-job, SIGSTOP);
        }
        if (stopped_) kill(-job, SIGCONT);
        stopped_ = !stopped_;
        duty_at_ = now_ms() + (stopped_ ? std::max<int64_t>(1, DUTY_PERIOD_MS - run_ms()) : run_ms());
    }

    string words() const {
        char text[64];
        snprintf(text, sizeof text, "suspended=%d throttle=%g cores=", suspended_, throttle_);
        return text + join(cores_);
    }

    bool suspended() const { return suspended_; }

    // How long the job has run; a suspended one stands still.
    int64_t ran_ms() const { return ran_ms_ + (suspended_ ? 0 : now_ms() - runs_since_ms_); }

  private:
    int64_t run_ms() const { return std::max<int64_t>(1, static_cast<int64_t>(throttle_ * DUTY_PERIOD_MS + 0.5)); }

    // All of them or none; returns "" or which one somebody else holds.
    string lock(const vector<int>& cores) {
        if (core_lock_.empty()) return "";
        for (size_t i = 0; i < cores.size(); ++i) {
            string busy = locks_.acquire(core_lock_, cores[i]);
            if (busy.empty()) continue;
            unlock({cores.begin(), cores.begin() + static_cast<long>(i)});
            return busy;
        }
        return "";
    }

    void unlock(const vector<int>& cores) {
        if (core_lock_.empty()) return;
        for (int core : cores) locks_.release(core_lock_, core);
    }

    bool apply_quota() const {
        auto cores = cores_.empty() ? sysconf(_SC_NPROCESSORS_ONLN) : static_cast<long>(cores_.size());
        return cgroups_.set_quota(throttle_ * static_cast<double>(cores), throttle_ >= 1);
    }

    Cgroups& cgroups_;
    LockFiles& locks_;
    vector<int> cores_;
    string core_lock_;
    bool suspended_ = false, stopped_ = false, duty_on_ = false;  // stopped_: by our own SIGSTOP
    bool holding_ = true;  // the locks of cores_
    double throttle_ = 1;
    int64_t duty_at_ = 0, duty_look_at_ = 0, ran_ms_ = 0, runs_since_ms_ = now_ms();
    vector<Process> duty_members_;
};

}  // namespace keeper
