// The journal: the claim, the pid and the end of an attempt, each a durable line.
#pragma once

#include <sys/stat.h>

#include "locks.hpp"

namespace keeper {

constexpr off_t JOURNAL_RESERVE_BYTES = 4096;

class Journal {
  public:
    // Writes the first line aside, locks it and links it into place: the journal exists only whole and locked, and
    // only one keeper can have made it. Returns 0 or the exit code.
    int claim(const string& first_line) {
        if (access("journal", F_OK) == 0) return EXIT_CLAIMED;
        string aside = ".claim." + std::to_string(getpid());
        fd_ = open(aside.c_str(), O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd_ < 0) return EXIT_NO_JOURNAL;
        fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, JOURNAL_RESERVE_BYTES);  // so that a full disk leaves room for the end
        bool good = lock_range(fd_, F_WRLCK, 0, 0) && append(first_line);
        int code = !good ? EXIT_NO_JOURNAL : link(aside.c_str(), "journal") == 0 ? 0
                   : errno == EEXIST ? EXIT_CLAIMED : EXIT_NO_JOURNAL;
        unlink(aside.c_str());
        return code;
    }

    // Appends one line durably; a line that could not be written leaves the journal as it was.
    bool line(const string& text) {
        if (!append(text)) return false;
        if (fdatasync(fd_) == 0) return true;
        take_back();
        return false;
    }

  private:
    bool append(const string& text) {
        struct stat info{};
        if (fstat(fd_, &info) != 0) return false;
        size_ = info.st_size;
        string whole = one_line(text) + "\n";
        if (write(fd_, whole.data(), whole.size()) == static_cast<ssize_t>(whole.size())) return true;
        take_back();
        return false;
    }

    void take_back() {  // a torn line that stays is ignored by readers, but would swallow the next one
        while (ftruncate(fd_, size_) != 0 && errno == EINTR) {}
    }

    int fd_ = -1;
    off_t size_ = 0;
};

inline bool sync_directory() {
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) close(fd);
    return good;
}

}  // namespace keeper
