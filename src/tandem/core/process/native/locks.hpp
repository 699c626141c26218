// Byte-range locks: one byte per core or slice of a GPU, held for the keeper's life, seen by every user's keeper.
#pragma once

#include <map>

#include "spec.hpp"

namespace keeper {

// An open-file-description lock: it belongs to this process, not to whoever else opens the file.
inline bool lock_range(int fd, short type, long long first, long long count) {
    struct flock range{};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = first;
    range.l_len = count;
    return fcntl(fd, F_OFD_SETLK, &range) == 0;
}

class LockFiles {
  public:
    // Returns "" or "PATH BYTE" of what somebody else holds (or cannot be opened).
    string acquire(const string& path, long long first, long long count = 1) {
        auto found = files_.find(path);
        int fd = found != files_.end() ? found->second : open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) files_[path] = fd;
        return fd >= 0 && lock_range(fd, F_WRLCK, first, count) ? "" : path + " " + std::to_string(first);
    }
    // Whether somebody else holds any byte of a file that was locked in before.
    bool others_hold(const string& path) const {
        auto found = files_.find(path);
        struct flock range{};
        range.l_type = F_WRLCK;
        range.l_whence = SEEK_SET;
        return found != files_.end() && (fcntl(found->second, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK);
    }
    void release(const string& path, long long byte) {
        auto found = files_.find(path);
        if (found != files_.end()) lock_range(found->second, F_UNLCK, byte, 1);
    }

  private:
    std::map<string, int> files_;
};

inline string acquire_all(const Spec& spec, LockFiles& files) {
    string busy;
    for (size_t i = 0; i < spec.cores.size() && !spec.core_lock.empty() && busy.empty(); ++i)
        busy = files.acquire(spec.core_lock, spec.cores[i]);
    for (size_t i = 0; i < spec.locks.size() && busy.empty(); ++i)
        busy = files.acquire(spec.locks[i].path, spec.locks[i].first, spec.locks[i].count);
    return busy;
}

}  // namespace keeper
