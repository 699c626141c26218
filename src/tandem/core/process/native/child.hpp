// The child between fork and exec.
#pragma once

#include <climits>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>

#include "cgroups.hpp"
#include "processes.hpp"

namespace keeper {

// What happens between fork and exec. Every failure is one line "ERRNO REASON" through the error pipe.
class Child {
  public:
    Child(const Spec& spec, const Cgroups& cgroups, bool in_v2, pid_t keeper, int release, int errors)
        : spec_(spec), cgroups_(cgroups), in_v2_(in_v2), keeper_(keeper), release_(release), errors_(errors) {
        char here[PATH_MAX];
        if (getcwd(here, sizeof here) != nullptr) attempt_ = here;
    }

    [[noreturn]] void run() {
        for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
        setsid();
        limit();
        if (!spec_.user_opens) open_outputs();
        become_user();
        if (spec_.user_opens) open_outputs();
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // after the change of user, which clears it
        if (getppid() != keeper_) _exit(1);
        if (chdir(spec_.cwd.c_str()) != 0) fail("enter the directory", spec_.cwd);
        char go = 0;
        if (read(release_, &go, 1) != 1) _exit(1);  // the keeper died: nothing is executed
        execute();
    }

  private:
    [[noreturn]] void fail(const char* what, const string& subject, int error = errno, const char* why = nullptr) {
        string text = std::to_string(error) + " cannot " + what + " '" + subject + "': " + (why ? why : strerror(error));
        if (write(errors_, text.data(), std::min(text.size(), static_cast<size_t>(PIPE_BUF))) < 0) _exit(126);
        _exit(127);
    }

    void limit() {
        string where;
        if (int error = cgroups_.enter(in_v2_, where)) fail("enter the cgroup", where, error);
        if (!spec_.cores.empty() && !set_affinity(0, spec_.cores)) fail("run on the cores", join(spec_.cores));
        errno = 0;
        if (spec_.nice != 0 && nice(static_cast<int>(spec_.nice)) == -1 && errno != 0) fail("set niceness", std::to_string(spec_.nice));
        if (spec_.umask >= 0) umask(static_cast<mode_t>(spec_.umask));
        for (const Limit& limit : spec_.limits)
            if (setrlimit(static_cast<decltype(RLIMIT_CPU)>(limit.resource), &limit.value) != 0)
                fail("set resource limit", std::to_string(limit.resource));
    }

    // Why it is never an output of the user's, in words; null where it may be one.
    static const char* unfit(const struct stat& info, uid_t uid) {
        if (S_ISLNK(info.st_mode)) return "it is a link";
        if (S_ISFIFO(info.st_mode)) return "it is a pipe";
        if (S_ISDIR(info.st_mode)) return "it is a folder";
        if (S_ISCHR(info.st_mode)) return nullptr;
        if (!S_ISREG(info.st_mode)) return "it is no file";
        if (info.st_nlink != 1) return info.st_nlink == 0 ? "it was removed" : "it has several names";
        return info.st_uid == uid || info.st_uid == geteuid() ? nullptr : "it belongs to another user";
    }

    // Never through a link, never a pipe that would block, and as root only into a file of root or of the job's user.
    // Made private, or as a shell's redirection would make it: with what the job's umask leaves.
    int open_output(const string& path, bool by_umask) {
        int flags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
        mode_t mask = by_umask ? 0 : umask(0077);
        int fd = open(path.c_str(), flags | O_CREAT | O_EXCL, by_umask ? 0666 : 0600);
        bool made = fd >= 0;
        int error = errno;
        if (!by_umask) umask(mask);
        errno = error;
        if (!made && errno == EEXIST) fd = open(path.c_str(), flags);
        struct stat info{};
        auto uid = spec_.uid < 0 ? geteuid() : static_cast<uid_t>(spec_.uid);
        if (fd < 0 || fstat(fd, &info) != 0) {
            error = errno;
            bool there = lstat(path.c_str(), &info) == 0;
            fail("open the output", path, error, there ? unfit(info, uid) : nullptr);
        }
        if (made && uid != info.st_uid && fchown(fd, uid, static_cast<gid_t>(spec_.gid)) != 0) fail("give away the output", path);
        if (const char* why = unfit(info, uid)) fail("use as an output", path, EPERM, why);
        fcntl(fd, F_SETFL, O_APPEND);
        return fd;
    }

    void open_outputs() {
        int out = open_output(spec_.out, spec_.out_by_umask);
        int err = spec_.err == spec_.out ? out : open_output(spec_.err, spec_.err_by_umask);
        if (dup2(out, 1) < 0 || dup2(err, 2) < 0) fail("redirect the output", spec_.out);
    }

    // Groups, then group, then user; leaving uid 0 drops every capability, and what could be inherited is cleared too.
    void become_user() {
        bool root = geteuid() == 0;
        if (root && (spec_.uid >= 0 || spec_.gid >= 0) && setgroups(spec_.groups) != 0) fail("set the groups of", std::to_string(spec_.uid));
        auto gid = static_cast<gid_t>(spec_.gid);
        if (spec_.gid >= 0 && (root || gid != getegid()) && setresgid(gid, gid, gid) != 0) fail("become group", std::to_string(gid));
        auto uid = static_cast<uid_t>(spec_.uid);
        if (spec_.uid >= 0 && (root || uid != geteuid()) && setresuid(uid, uid, uid) != 0) fail("become user", std::to_string(uid));
        if (!root || spec_.uid <= 0) return;
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        __user_cap_data_struct none[2] = {};
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        if (syscall(SYS_capset, &header, none) != 0) fail("drop the capabilities of", std::to_string(uid));
    }

    static int setgroups(const vector<gid_t>& groups) { return static_cast<int>(syscall(SYS_setgroups, groups.size(), groups.data())); }

    [[noreturn]] void execute() {
        vector<char*> argv, env;
        for (const string& word : spec_.argv) argv.push_back(const_cast<char*>(word.c_str()));
        for (const string& pair : spec_.env) env.push_back(const_cast<char*>(pair.c_str()));
        string mark = "TANDEM_ATTEMPT=" + attempt_;  // by which a dead keeper's strays are found
        env.push_back(const_cast<char*>(mark.c_str()));
        argv.push_back(nullptr);
        env.push_back(nullptr);
        environ = env.data();  // execvp searches the PATH of the job, not the keeper's
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        execvp(argv[0], argv.data());
        bool script = errno == ENOENT && spec_.argv[0].find('/') != string::npos && access(argv[0], F_OK) == 0;
        fail(script ? "find the interpreter of" : "execute", spec_.argv[0]);
    }

    const Spec& spec_;
    const Cgroups& cgroups_;
    bool in_v2_;
    pid_t keeper_;
    int release_, errors_;
    string attempt_;
};

}  // namespace keeper
