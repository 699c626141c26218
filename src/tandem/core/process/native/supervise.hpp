// The loop: from fork to the durable end, obeying commands in between.

#pragma once

#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "child.hpp"
#include "control.hpp"
#include "journal.hpp"
#include "restraint.hpp"

namespace keeper {

constexpr int64_t JOURNAL_RETRY_MS = 1000;
constexpr int64_t KILL_WAIT_MAX_MS = 50;
constexpr int REFUSALS_MAX = 20;
constexpr int64_t ALONE_MS = 1000;

class Supervisor {
  public:
    Supervisor(const Spec& spec, Journal& journal, LockFiles& locks, Control& control)
        : spec_(spec), journal_(journal), control_(control), restraint_(spec, cgroups_, locks) {}

    // Returns the keeper's exit code.
    int run() {
        string where;
        if (int error = cgroups_.prepare(spec_.cgroup_steps, where)) {
            end_line_ = "exec-failed " + std::to_string(error) + " cannot prepare the cgroup '" + where + "': " + strerror(error);
            return end_early(end_line_);
        }
        if (!start()) {
            cgroups_.remove();
            control_.finish();
            return EXIT_NO_JOURNAL;
        }
        if (geteuid() == 0) write_file("/proc/self/oom_score_adj", "-900");  // the job's stays as it was
        while (!finished_) turn();
        control_.finish();
        return 0;
    }

    // An end before anything was executed; a journal without a pid says the same, should it not be writable.
    int end_early(const string& line) {
        cgroups_.remove();
        bool durable = journal_.line(line);
        control_.send_line((durable ? "ended durable " : "ended volatile ") + one_line(line));
        control_.finish();
        return durable ? 0 : EXIT_NO_JOURNAL;
    }

  private:
    // Forks; the child prepares itself while the pid is made durable, and executes only after that.
    bool start() {
        int release[2], errors[2];
        sigset_t every, child_ended;
        sigfillset(&every);
        sigprocmask(SIG_SETMASK, &every, nullptr);
        sigemptyset(&child_ended);
        sigaddset(&child_ended, SIGCHLD);
        signals_ = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
        if (signals_ < 0 || pipe2(release, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC) != 0) return false;
        pid_t keeper = getpid();
        bool in_v2 = false;
        job_.pid = fork_into_group(in_v2);
        if (job_.pid < 0) return false;
        if (job_.pid == 0) {
            close(release[1]);
            Child(spec_, cgroups_, in_v2, keeper, release[0], errors[1]).run();
        }
        close(release[0]);
        close(errors[1]);
        errors_ = errors[0];
        fcntl(errors_, F_SETFL, O_NONBLOCK);
        bool recorded = record_pid();
        if (recorded && write(release[1], "g", 1) != 1) errno = 0;  // the child has failed already and says why
        close(release[1]);
        if (!recorded) waitpid(job_.pid, nullptr, 0);  // it sees the closed pipe and leaves
        return recorded;
    }

    bool record_pid() {
        bool known = look_at(job_.pid, job_);
        named_ = std::to_string(job_.pid) + " " + std::to_string(job_.start) + " " + wall_clock();
        bool durable = known && journal_.line("pid " + named_) && sync_directory();
        if (durable) crash_if("after-pid");
        return durable;
    }

    pid_t fork_into_group(bool& in_v2) {
        int group = cgroups_.open_v2();
        in_v2 = group >= 0;
        pid_t pid = in_v2 ? fork_into(group) : -1;
        if (in_v2 && pid != 0) close(group);
        if (pid >= 0) return pid;
        in_v2 = false;  // an older kernel: the child moves itself
        return fork();
    }

    void turn() {
        wait_for_events();
        signalfd_siginfo ignored;
        while (read(signals_, &ignored, sizeof ignored) > 0) {}
        if (errors_ >= 0) hear_of_exec();
        reap();
        if (now_ms() >= restraint_.due_ms()) restraint_.duty_turn(job_.pid);
        if (now_ms() >= limit_due_ms()) hold_time_limit();  // before what puts off the next look
        if (now_ms() >= alone_due_ms()) go_on_alone();
        if (now_ms() >= kill_due_ms()) kill_pass();
        if (now_ms() >= end_due_ms()) write_end();
    }

    int64_t alone_due_ms() const {
        return control_.client() < 0 && !killing_ && !ended_ ? alone_at_ : INT64_MAX;
    }

    // Told in the journal afterwards: a line before it would be wrong where the cores are taken in between.
    void go_on_alone() {
        restraint_.renew_locks();
        if (restraint_.lift()) journal_.line("continued " + wall_clock());
        alone_at_ = now_ms() + ALONE_MS;
    }

    int64_t limit_due_ms() const {
        const TimeLimit& limit = spec_.time_limit;
        if (limit.run_ms < 0 || killing_ || ended_) return INT64_MAX;
        if (ending_) return std::min(term_at_, give_up_at_);
        if (control_.client() >= 0 || restraint_.suspended()) return INT64_MAX;
        return std::max<int64_t>(alone_at_, now_ms() + limit.run_ms - restraint_.ran_ms());
    }

    // No scheduler is there to end the job at its limit. Told in the journal first, so that the next scheduler knows why
    // it ended; once begun it is carried through, whoever comes meanwhile.
    void hold_time_limit() {
        const TimeLimit& limit = spec_.time_limit;
        int64_t now = now_ms();
        if (!ending_) {
            alone_at_ = now + ALONE_MS;
            if (!journal_.line("timed-out " + wall_clock())) return;  // a full disk: tried again
            bool saves = limit.signal > 0 && limit.grace_ms > 0;
            if (saves) kill(job_.pid, static_cast<int>(limit.signal));
            ending_ = true;
            give_up_at_ = now + limit.grace_ms;
            term_at_ = limit.grace_ms == 0 ? INT64_MAX : saves ? now + limit.grace_ms / 2 : now;
        }
        if (now >= term_at_) terminate(), term_at_ = INT64_MAX;
        if (now >= give_up_at_) killing_ = true, kill_at_ = 0;
    }

    int64_t kill_due_ms() const { return (killing_ || ended_) && !nobody_left_ ? kill_at_ : INT64_MAX; }
    int64_t end_due_ms() const { return ended_ && nobody_left_ ? journal_at_ : INT64_MAX; }

    void wait_for_events() {
        int64_t next = std::min({restraint_.due_ms(), alone_due_ms(), limit_due_ms(), kill_due_ms(), end_due_ms()});
        int timeout = next == INT64_MAX ? -1 : static_cast<int>(std::clamp<int64_t>(next - now_ms(), 0, INT_MAX));
        pollfd fds[] = {{signals_, POLLIN, 0}, {errors_, POLLIN, 0}, {control_.listener(), POLLIN, 0}, {control_.client(), POLLIN, 0}};
        if (poll(fds, 4, timeout) <= 0) return;
        if (control_.client() >= 0) alone_at_ = now_ms() + ALONE_MS;
        string message;
        if (fds[3].revents != 0 && control_.receive(message)) answer(message);
        if (fds[2].revents != 0) control_.accept_newest();
    }

    // The error pipe closes on exec, or says why there was none.
    void hear_of_exec() {
        char text[PIPE_BUF];
        ssize_t n = read(errors_, text, sizeof text);
        if (n < 0) return;
        close(errors_);
        errors_ = -1;
        if (n > 0) {
            exec_error_ = string(text, static_cast<size_t>(n));
            return;
        }
        crash_if("after-exec");
        control_.send_line("started " + named_);
    }

    // Once there is no child left there is no descendant left: every orphan below becomes a child of the subreaper.
    void reap() {
        int status = 0;
        pid_t pid = 0;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
            if (pid != job_.pid) continue;
            ended_ = true;
            status_ = status;
            kill_at_ = 0;
        }
        if (pid < 0 && errno == ECHILD) nobody_left_ = true;
    }

    // One look and one signal to everybody found; repeated until nobody is left. Programs of another user (setuid)
    // that cannot be killed are not waited for.
    void kill_pass() {
        cgroups_.kill();
        size_t refused = 0, seen = 0;
        for (const Process& process : descendants()) {
            ++seen;
            errno = 0;
            if (!signal_process(process, SIGKILL) && errno == EPERM) ++refused;
        }
        restraint_.let_die();
        refusals_ = seen > 0 && refused == seen ? refusals_ + 1 : 0;
        nobody_left_ = ended_ && refusals_ > REFUSALS_MAX;
        kill_wait_ms_ = std::min(KILL_WAIT_MAX_MS, kill_wait_ms_ * 2 + (++passes_ > 10 ? 1 : 0));
        kill_at_ = now_ms() + kill_wait_ms_;
    }

    void write_end() {
        if (end_line_.empty()) {
            if (errors_ >= 0) hear_of_exec();
            bool well = exec_error_.empty() && WIFEXITED(status_) && WEXITSTATUS(status_) == 0;
            if (!well) record_memory_kills();
            cgroups_.remove();
            crash_if("before-exit");
            end_line_ = exec_error_.empty() ? exit_line() : "exec-failed " + exec_error_;
        }
        finished_ = journal_.line(end_line_);
        bool news = finished_ || !told_volatile_;
        if (news) control_.send_line((finished_ ? "ended durable " : "ended volatile ") + one_line(end_line_));
        told_volatile_ = true;
        journal_at_ = now_ms() + JOURNAL_RETRY_MS;
    }

    // Why a job was killed that nobody told to end; the end itself is told without it too.
    void record_memory_kills() {
        long long limit_bytes = 0, kills = cgroups_.memory_kills(limit_bytes);
        if (kills > 0) journal_.line("memory-kills " + std::to_string(kills) + " " + std::to_string(limit_bytes));
    }

    string exit_line() const {
        rusage usage{};
        getrusage(RUSAGE_CHILDREN, &usage);
        char text[200];
        snprintf(text, sizeof text, "exit %d %d %lld.%06ld %lld.%06ld %ld ", WIFEXITED(status_) ? WEXITSTATUS(status_) : -1,
                 WIFSIGNALED(status_) ? WTERMSIG(status_) : 0, static_cast<long long>(usage.ru_utime.tv_sec),
                 static_cast<long>(usage.ru_utime.tv_usec), static_cast<long long>(usage.ru_stime.tv_sec),
                 static_cast<long>(usage.ru_stime.tv_usec), usage.ru_maxrss);
        return text + wall_clock();
    }

    void answer(const string& message) {
        vector<string> words = split(message, ' ');
        string why = ended_ && words[0] != "ping" ? "the job has ended" : obey(words);
        string shown = one_line(words[0].substr(0, 100));
        if (!why.empty()) return control_.send_line("error " + shown + " " + one_line(why));
        control_.send_line("ok " + shown + (words[0] == "ping" ? " " + status() : ""));
    }

    string status() const {
        return "pid=" + std::to_string(job_.pid) + " ended=" + std::to_string(ended_) + " " + restraint_.words();
    }

    string obey(const vector<string>& words) {
        const string& command = words[0];
        string argument = words.size() == 2 ? words[1] : "";
        if (words.size() > 2) return "too many words";
        if (command == "ping") return "";
        if (command == "signal") return send_signal(argument);
        if (command == "term") return terminate();
        if (command == "kill") return killing_ = true, kill_at_ = 0, "";
        if (command == "suspend") return ending_ ? "its time limit is over" : restraint_.suspend();
        if (command == "resume") return restraint_.resume();
        if (command == "throttle") return restraint_.throttle(argument);
        if (command == "pin") return restraint_.pin(job_.pid, argument);
        if (command == "lock") {
            string busy = restraint_.renew_locks();
            return busy.empty() ? "" : "busy " + busy;
        }
        return "unknown; allowed: signal N, term, kill, suspend, resume, throttle FRACTION, pin CORES, lock, ping";
    }

    // To the main process, running, whoever has its cores now: the signal asks it to save its state before it ends.
    string send_signal(const string& argument) {
        long long number = 0;
        if (!parse_number(argument, number) || number < 1 || number >= NSIG) return "a signal is a number from 1 to 64";
        string why = restraint_.suspended() ? restraint_.thaw() : "";
        if (!why.empty()) return why;
        return kill(job_.pid, static_cast<int>(number)) == 0 ? "" : strerror(errno);
    }

    // The job's process group, running: a handler cannot run while it is frozen or stopped.
    string terminate() {
        string why = restraint_.suspended() ? restraint_.thaw() : "";
        if (!why.empty()) return why;
        return kill(-job_.pid, SIGTERM) == 0 || kill(job_.pid, SIGTERM) == 0 ? "" : strerror(errno);
    }

    const Spec& spec_;
    Journal& journal_;
    Control& control_;
    Cgroups cgroups_;
    Restraint restraint_;
    Process job_;
    int signals_ = -1, errors_ = -1, status_ = 0, passes_ = 0, refusals_ = 0;
    bool ended_ = false, nobody_left_ = false, finished_ = false, told_volatile_ = false, killing_ = false;
    bool ending_ = false;  // at its time limit, by this keeper
    int64_t kill_at_ = 0, kill_wait_ms_ = 0, journal_at_ = 0, alone_at_ = 0, term_at_ = 0, give_up_at_ = 0;
    string named_, exec_error_, end_line_;
};

}  // namespace keeper
