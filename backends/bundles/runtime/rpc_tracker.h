// A board in a pool of TVM's tracker: messages are JSON with their length in front.
#pragma once
#include <netdb.h>
#include <stdlib.h>
#include <unistd.h>

#include "rpc_bytes.h"
#include "rpc_greeting.h"

class Tracker {
 public:
  // `host` is nullptr for a board in no pool. `address` is where clients reach the board, if the tracker sees another.
  Tracker(const char* host, const char* port, const char* key, const char* address, int own_port)
      : host_(host), port_(port), key_(key), address_(address), own_port_(own_port) {}

  bool any() const { return host_ != nullptr; }

  // What the next client has to know, and with it gets the board.
  const char* match_key() const { return match_key_; }

  // Joins the tracker, or a new one in its place, and renews a key that a client took and never used.
  void keep() {
    if (!any()) return;
    if (socket_ < 0) {
      if (join()) {
        say("registered with the tracker %s:%s as '%s'", host_, port_, key_);
        told_ = false;
      } else if (!told_) {
        say("cannot reach the tracker %s:%s; trying on", host_, port_);
        told_ = true;
      }
      return;
    }
    char message[16];
    snprintf(message, sizeof message, "[%d]", kPending);
    char* pending = ask(message);
    if (!pending) {
      leave();
      return;
    }
    char quoted[kMostKey + 2];
    snprintf(quoted, sizeof quoted, "\"%s\"", match_key_);
    if (strstr(pending, quoted)) {
      unused_ = 0;
    } else if (unused_ == 0) {
      unused_ = seconds();
    } else if (seconds() - unused_ > kUnusedSeconds) {
      offer();
    }
    free(pending);
  }

  // Makes a key for the next client, and tells the tracker.
  void offer() {
    if (socket_ < 0) return;
    unused_ = 0;  // From now on it is this key that is used or not.
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) fail("the system has no random bytes");
    char message[3 * kMostKey];
    int used = snprintf(match_key_, sizeof match_key_, "%s:", key_);
    for (unsigned char byte : random) used += snprintf(match_key_ + used, 3, "%02x", byte);
    snprintf(message, sizeof message, "[%d, \"%s\", [%d, \"%s\"], %s]", kPut, key_, own_port_, match_key_, address());
    if (!tell(message)) leave();
  }

 private:
  static constexpr int32_t kTrackerMagic = 0x2f271, kMostAnswer = 1 << 20;
  static constexpr int kPut = 3, kUpdateInfo = 5, kPending = 7, kUnusedSeconds = 6, kAnswerSeconds = 5;

  // Sends a message; the answer, which the caller frees, or nullptr when the tracker is gone.
  char* ask(const char* message) {
    const double end = seconds() + kAnswerSeconds;
    int32_t length = 0;
    if (!transmit_text(socket_, message, end) || !receive(socket_, &length, sizeof length, end)) return nullptr;
    if (length < 0 || length > kMostAnswer) return nullptr;
    char* answer = static_cast<char*>(calloc(static_cast<size_t>(length) + 1, 1));
    if (answer && receive(socket_, answer, static_cast<size_t>(length), end)) return answer;
    free(answer);
    return nullptr;
  }

  bool tell(const char* message) {
    char* answer = ask(message);
    const bool good = answer && !strcmp(answer, "0");
    free(answer);
    return good;
  }

  void leave() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }

  const char* address() {
    if (!address_) return "null";
    snprintf(quoted_, sizeof quoted_, "\"%s\"", address_);
    return quoted_;
  }

  int connected() {
    addrinfo hints, *found = nullptr;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host_, port_, &hints, &found)) return -1;
    int made = -1;
    for (addrinfo* at = found; at && made < 0; at = at->ai_next) {
      made = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, 0);
      if (made < 0) continue;
      guard(made, kAnswerSeconds);
      if (connect(made, at->ai_addr, at->ai_addrlen)) close(made), made = -1;
    }
    freeaddrinfo(found);
    return made;
  }

  bool join() {
    socket_ = connected();
    const double end = seconds() + kAnswerSeconds;
    int32_t magic = 0;
    char message[2 * kMostKey];
    snprintf(message, sizeof message, "[%d, {\"key\": \"server:%s\", \"addr\": [%s, %d]}]", kUpdateInfo, key_, address(),
             own_port_);
    const bool good = socket_ >= 0 && transmit_integer(socket_, kTrackerMagic, end) &&
                      receive(socket_, &magic, sizeof magic, end) && magic == kTrackerMagic && tell(message);
    if (good) offer();
    if (!good) leave();
    return socket_ >= 0;
  }

  const char *host_, *port_, *key_, *address_;
  int own_port_, socket_ = -1;
  bool told_ = false;
  double unused_ = 0;
  char match_key_[kMostKey] = "", quoted_[300];
};
