// A limit on the messages of a session, kept before anybody makes room for one.
//
// A message has its length in front, eight bytes, and TVM's runtime makes room for as many as those say. It reads by recv, and
// so by the one here: a program's functions come before those of libraries.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

namespace messages {

inline int socket = -1;         // of the session
inline uint64_t most = 0;       // bytes of a message
inline uint64_t left = 0;       // of the current one
inline unsigned char head[8];   // of the next one, as far as it came
inline size_t have = 0;

// Follows what was read. False at a message that is too long.
inline bool within(const unsigned char* data, size_t size) {
  while (size) {
    if (left) {
      const size_t part = size < left ? size : static_cast<size_t>(left);
      data += part, size -= part, left -= part;
      continue;
    }
    head[have++] = *data++, --size;
    if (have < sizeof head) continue;
    memcpy(&left, head, sizeof left);
    have = 0;
    if (left > most) return false;
  }
  return true;
}

}  // namespace messages

extern "C" ssize_t recv(int socket, void* data, size_t size, int flags) {
  const ssize_t count = recvfrom(socket, data, size, flags, nullptr, nullptr);
  if (count <= 0 || socket != messages::socket) return count;
  if (messages::within(static_cast<const unsigned char*>(data), static_cast<size_t>(count))) return count;
  errno = EMSGSIZE;
  return -1;
}
