// Whoever commands the keeper: the socket it was born with, then the newest who connects to `ctl`.
#pragma once

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "text.hpp"

namespace keeper {

constexpr size_t MESSAGE_MAX = 65536;

class Control {
  public:
    explicit Control(int client) : client_(client) {}

    void listen_here() {
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        strcpy(name.sun_path, "ctl");
        unlink("ctl");
        listener_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        mode_t mask = umask(0177);
        if (bind(listener_, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 || listen(listener_, 8) != 0) {
            close(listener_);
            listener_ = -1;
        }
        umask(mask);
    }

    void accept_newest() {
        int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        ucred peer{};
        socklen_t size = sizeof peer;
        if (fd < 0) return;
        bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == geteuid() || peer.uid == 0);
        if (!known) {
            close(fd);
            return;
        }
        send_line("replaced");
        drop();
        client_ = fd;
    }

    bool receive(string& message) {  // false: nothing (any more)
        message.resize(MESSAGE_MAX);
        ssize_t n = recv(client_, &message[0], MESSAGE_MAX, MSG_DONTWAIT);  // an empty message reads like the end
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) drop();
        if (n <= 0) return false;
        message.resize(static_cast<size_t>(n));
        return true;
    }

    void send_line(const string& text) {
        if (client_ >= 0) send(client_, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    }

    void finish() const {
        if (listener_ >= 0) unlink("ctl");
    }

    int client() const { return client_; }
    int listener() const { return listener_; }

  private:
    void drop() {
        if (client_ >= 0) close(client_);
        client_ = -1;
    }

    int client_, listener_ = -1;
};

}  // namespace keeper
