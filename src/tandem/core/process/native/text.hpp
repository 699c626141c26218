// Numbers, lines, small files, the clocks: what the other parts are written in.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <set>
#include <string>
#include <vector>

namespace keeper {

using std::string;
using std::vector;

constexpr int EXIT_USAGE = 64;
constexpr int EXIT_NO_JOURNAL = 73;  // the claim or the pid line could not be written: nothing was started
constexpr int EXIT_CLAIMED = 75;     // another keeper has this attempt: nothing was changed

inline int64_t now_ms() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

inline string wall_clock() {
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    char text[40];
    snprintf(text, sizeof text, "%lld.%06ld", static_cast<long long>(t.tv_sec), t.tv_nsec / 1000);
    return text;
}

inline void pause_ms(int64_t ms) {
    timespec t{ms / 1000, (ms % 1000) * 1000000};
    nanosleep(&t, nullptr);
}

// Everything that could end a line becomes '?', so that one fact stays one line of the journal.
inline string one_line(string text) {
    for (char& c : text)
        if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
    return text;
}

inline bool parse_number(const string& text, long long& value) {
    char* end = nullptr;
    errno = 0;
    value = strtoll(text.c_str(), &end, 10);
    return !text.empty() && *end == 0 && errno == 0;
}

inline vector<string> split(const string& text, char separator) {
    vector<string> parts;
    size_t from = 0;
    while (true) {
        size_t to = text.find(separator, from);
        parts.push_back(text.substr(from, to == string::npos ? to : to - from));
        if (to == string::npos) return parts;
        from = to + 1;
    }
}

inline string join(const vector<int>& numbers) {
    string text;
    for (int n : numbers) text += (text.empty() ? "" : ",") + std::to_string(n);
    return text;
}

inline bool parse_cores(const string& text, vector<int>& cores) {
    std::set<int> unique;
    for (const string& part : split(text, ',')) {
        long long n = 0;
        if (!parse_number(part, n) || n < 0 || n >= 8192) return false;
        unique.insert(static_cast<int>(n));
    }
    cores.assign(unique.begin(), unique.end());
    return true;
}

inline bool read_all(int fd, string& content) {
    char buffer[16384];
    content.clear();
    while (true) {
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n == 0;
        content.append(buffer, static_cast<size_t>(n));
    }
}

inline bool read_file(const string& path, string& content) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool good = read_all(fd, content);
    close(fd);
    return good;
}

inline int write_file(const string& path, const string& value) {  // 0 or errno
    int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    ssize_t n = write(fd, value.data(), value.size());
    int error = n < 0 ? errno : static_cast<size_t>(n) == value.size() ? 0 : EIO;
    close(fd);
    return error;
}

inline void crash_if(const char* point) {  // test hook: die here as if by kill -9
    const char* wanted = getenv("TANDEM_KEEPER_CRASH");
    if (wanted != nullptr && strcmp(wanted, point) == 0) raise(SIGKILL);
}

}  // namespace keeper
