// Byte-range locks: one byte per core or slice of a GPU, held for the keeper's life, seen by every user's keeper.
#pragma once

#include <map>
#include <set>
#include <utility>

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

// A lock file may be removed and made again, as by a cleaner of temporary folders: what is held is locked anew in the file
// that is at the path now.
class LockFiles {
  public:
    // Returns "" or "PATH BYTE" of what somebody else holds (or cannot be opened).
    string acquire(const string& path, long long first, long long count = 1) {
        File& file = files_[path];
        follow(path, file);
        if (file.fd < 0 || !lock_range(file.fd, F_WRLCK, first, count)) return path + " " + std::to_string(first);
        file.held.emplace(first, count);
        return "";
    }
    // Whether somebody else holds any byte of a file that was locked in before.
    bool others_hold(const string& path) {
        auto found = files_.find(path);
        if (found == files_.end()) return false;
        follow(path, found->second);
        struct flock range{};
        range.l_type = F_WRLCK;
        range.l_whence = SEEK_SET;
        return fcntl(found->second.fd, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
    }
    void release(const string& path, long long byte) {
        auto found = files_.find(path);
        if (found == files_.end()) return;
        found->second.held.erase({byte, 1});
        lock_range(found->second.fd, F_UNLCK, byte, 1);
    }
    // Locks what is held, wherever that got lost; returns "" or "PATH BYTE" of what somebody else has locked meanwhile.
    string renew() {
        string busy;
        for (auto& [path, file] : files_) {
            follow(path, file);
            for (auto [first, count] : file.held)
                if (!lock_range(file.fd, F_WRLCK, first, count) && busy.empty()) busy = path + " " + std::to_string(first);
        }
        return busy;
    }

  private:
    struct File {
        int fd = -1;
        std::set<std::pair<long long, long long>> held;  // first, count
    };

    static void follow(const string& path, File& file) {
        struct stat named{}, ours{};
        bool same = file.fd >= 0 && lstat(path.c_str(), &named) == 0 && fstat(file.fd, &ours) == 0 &&
                    named.st_dev == ours.st_dev && named.st_ino == ours.st_ino;
        int fresh = same ? -1 : open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fresh < 0) return;  // where it is gone, nobody else can lock in it either
        for (auto [first, count] : file.held) lock_range(fresh, F_WRLCK, first, count);
        if (file.fd >= 0) close(file.fd);
        file.fd = fresh;
    }

    std::map<string, File> files_;
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
