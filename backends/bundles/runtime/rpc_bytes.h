// Bytes over sockets, and no longer than until a moment that is set for all of them.
#pragma once
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "rpc_log.h"

inline volatile sig_atomic_t stopped = 0;

// Whether the socket is ready before `end`.
inline bool ready(int socket, short events, double end) {
  while (!stopped) {
    const double left = end - seconds();
    if (left <= 0) return false;
    pollfd wait = {socket, events, 0};
    const int found = poll(&wait, 1, static_cast<int>(left * 1e3) + 1);
    if (found > 0) return true;
    if (found == 0 || errno != EINTR) return false;
  }
  return false;
}

inline bool receive(int socket, void* data, size_t size, double end) {
  char* at = static_cast<char*>(data);
  while (size) {
    if (!ready(socket, POLLIN, end)) return false;
    const ssize_t count = recv(socket, at, size, MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return false;
    at += count, size -= static_cast<size_t>(count);
  }
  return true;
}

inline bool transmit(int socket, const void* data, size_t size, double end) {
  const char* at = static_cast<const char*>(data);
  while (size) {
    if (!ready(socket, POLLOUT, end)) return false;
    const ssize_t count = send(socket, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return false;
    at += count, size -= static_cast<size_t>(count);
  }
  return true;
}

inline bool transmit_integer(int socket, int32_t number, double end) {
  return transmit(socket, &number, sizeof number, end);
}

inline bool transmit_text(int socket, const char* text, double end) {
  const size_t length = strlen(text);
  return transmit_integer(socket, static_cast<int32_t>(length), end) && transmit(socket, text, length, end);
}

// A socket whose other end may die: calls end after `wait` seconds without a byte (0: never), and a machine that is gone is
// noticed.
inline void guard(int socket, int wait) {
  const timeval limit = {wait, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const int on = 1, idle = 10, interval = 5, count = 3;
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
