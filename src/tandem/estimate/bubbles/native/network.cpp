// The loopback network: a TCP connection of this thread with itself on 127.0.0.1. A round is one message there and one
// back, no more than the sockets' buffers hold, so that nothing blocks; a bubble's messages are long, a reporter's short.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <vector>

#include "kernel.hpp"
#include "pace.hpp"

namespace tandem::bubbles {
namespace {

constexpr std::size_t BUBBLE_BYTES = std::size_t{32} << 10;
constexpr std::size_t REPORTER_BYTES = 64;
constexpr int64_t PERIOD_NS = 200 * MICROSECOND;

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
    if (fd < 0) fail("cannot make a loopback socket");
  }
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

  void tune() const {
    const int on = 1;
    const linger at_once{1, 0};  // closing resets: not even a TIME_WAIT entry stays behind
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    const int bytes = 256 << 10;
    setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }

 private:
  int fd_;
};

// Connects `client` to this process itself and returns the other end; a stranger who connects first is sent away.
int connect_to_itself(const Socket& client) {
  const Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in here{};
  here.sin_family = AF_INET;
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof here;
  auto* address = reinterpret_cast<sockaddr*>(&here);
  if (bind(listener.fd(), address, size) != 0 || listen(listener.fd(), 8) != 0 ||
      getsockname(listener.fd(), address, &size) != 0 || connect(client.fd(), address, size) != 0)
    fail("cannot connect on 127.0.0.1");
  sockaddr_in ours{};
  size = sizeof ours;
  getsockname(client.fd(), reinterpret_cast<sockaddr*>(&ours), &size);
  while (true) {
    sockaddr_in theirs{};
    size = sizeof theirs;
    const int fd = accept4(listener.fd(), reinterpret_cast<sockaddr*>(&theirs), &size, SOCK_CLOEXEC);
    if (fd < 0) fail("cannot accept on 127.0.0.1");
    if (theirs.sin_port == ours.sin_port) return fd;
    close(fd);
  }
}

class Loopback final : public Kernel {
 public:
  explicit Loopback(std::size_t message_bytes)
      : client_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), server_(connect_to_itself(client_)),
        message_(message_bytes) {
    client_.tune();
    server_.tune();
  }

  uint64_t run(double level) override {
    return duty(level, PERIOD_NS, [&] {
      pass(client_, server_);
      pass(server_, client_);
      return uint64_t{1};
    });
  }

 private:
  void pass(const Socket& from, const Socket& to) {
    const auto size = static_cast<ssize_t>(message_.size());
    if (send(from.fd(), message_.data(), message_.size(), MSG_NOSIGNAL) != size) fail("cannot send on 127.0.0.1");
    if (recv(to.fd(), message_.data(), message_.size(), MSG_WAITALL) != size) fail("cannot receive on 127.0.0.1");
  }

  Socket client_, server_;
  std::vector<char> message_;
};

}  // namespace

std::unique_ptr<Kernel> make_network(Role role) {
  return std::make_unique<Loopback>(role == Role::bubble ? BUBBLE_BYTES : REPORTER_BYTES);
}

}  // namespace tandem::bubbles
