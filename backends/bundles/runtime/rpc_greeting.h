// How a client says who it is: first that it knows the board's key, if the board has one, and then what TVM's clients say.
//
//   client  "RCV1", 32 random bytes C
//   board   "RCV1", 32 random bytes B
//   client  HMAC-SHA256(key, "reconvene client" C B)
//   board   a status S, HMAC-SHA256(key, "reconvene board" S C B)
//
// Both have proved to know the key, by bytes that are good for this connection only. Then comes TVM's greeting: a number, and a
// text with its length in front. Nothing of it is waited for: a greeting takes what has arrived, and there are many at a time.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "rpc_log.h"
#include "sha256.h"

constexpr size_t kMostKey = 512, kNonce = 32, kLeastSecret = 16, kMostSecret = 4096;
// Numbers of TVM's.
constexpr int32_t kMagic = 0xff271, kMismatch = kMagic + 2;
// Ours: "RCV1", and what those are told who did not say it, or said it to a board that has no key.
constexpr int32_t kKeyed = 0x31564352, kWantsKey = 0x32564352, kHasNoKey = 0x33564352;

enum Status : unsigned char { kWelcome = 0, kWrongKey = 1, kBusy = 2 };

// The key of a board. Without one, everybody is let in.
struct Secret {
  unsigned char bytes[kMostSecret];
  size_t size = 0;
};

class Greeting {
 public:
  enum State { kGoing, kDone, kOver };

  Greeting(int socket, const Secret* secret, double end) : end(end), socket_(socket), secret_(secret) {}

  // Takes what has arrived. `busy`: whether a client that is let in could not even wait.
  State go_on(bool busy) {
    for (;;) {
      while (have_ < need_) {
        const ssize_t count = recv(socket_, buffer_ + have_, need_ - have_, MSG_DONTWAIT);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return kGoing;
        if (count <= 0) return kOver;
        have_ += static_cast<size_t>(count);
      }
      have_ = 0;
      const State state = step(busy);
      if (state != kGoing) return state;
    }
  }

  // What the client asked for: "client:NAME", and options after a space.
  char* asked() { return reinterpret_cast<char*>(buffer_); }

  const double end;

 private:
  enum Step { kFirst, kClientNonce, kProof, kTvm, kLength, kText };

  State step(bool busy) {
    switch (step_) {
      case kFirst:
        if (number() == kKeyed) return secret_->size ? next(kClientNonce, kNonce) : told(kHasNoKey);
        if (secret_->size) return number() == kMagic ? told(kWantsKey) : kOver;
        return number() == kMagic ? next(kLength, 4) : kOver;
      case kClientNonce:
        memcpy(client_, buffer_, kNonce);
        return challenge() ? next(kProof, Sha256::kBytes) : kOver;
      case kProof:
        return admitted(busy);
      case kTvm:
        return number() == kMagic ? next(kLength, 4) : kOver;
      case kLength:
        if (number() < 0 || number() >= static_cast<int32_t>(kMostKey)) return kOver;
        return next(kText, static_cast<size_t>(number()));
      case kText:
        buffer_[need_] = 0;
        if (memchr(buffer_, 0, need_)) return kOver;
        return busy ? kOver : kDone;
    }
    return kOver;
  }

  State next(Step step, size_t need) {
    step_ = step, need_ = need;
    return kGoing;
  }

  int32_t number() const {
    int32_t value;
    memcpy(&value, buffer_, sizeof value);
    return value;
  }

  // A new connection has room for these few bytes, or it is none that is worth a wait.
  bool sent(const void* data, size_t size) {
    return send(socket_, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(size);
  }

  State told(int32_t reason) {
    sent(&reason, sizeof reason);
    return kOver;
  }

  bool challenge() {
    if (getrandom(board_, kNonce, 0) != static_cast<ssize_t>(kNonce)) return false;
    unsigned char message[4 + kNonce];
    memcpy(message, &kKeyed, 4);
    memcpy(message + 4, board_, kNonce);
    return sent(message, sizeof message);
  }

  State admitted(bool busy) {
    unsigned char expected[Sha256::kBytes], answer[1 + Sha256::kBytes];
    proof("reconvene client", nullptr, expected);
    const bool knows = same_bytes(expected, buffer_, sizeof expected);
    answer[0] = !knows ? kWrongKey : busy ? kBusy : kWelcome;
    if (knows) {
      proof("reconvene board", answer, answer + 1);
    } else {
      // Whoever does not know the key gets nothing that was made with it.
      memset(answer + 1, 0, Sha256::kBytes);
      say_of_peer("a client does not know the key");
    }
    return sent(answer, sizeof answer) && answer[0] == kWelcome ? next(kTvm, 4) : kOver;
  }

  void proof(const char* role, const unsigned char* status, unsigned char* digest) const {
    Hmac sum(secret_->bytes, secret_->size);
    sum.add(role, strlen(role));
    if (status) sum.add(status, 1);
    sum.add(client_, kNonce);
    sum.add(board_, kNonce);
    sum.finish(digest);
  }

  int socket_;
  const Secret* secret_;
  Step step_ = kFirst;
  size_t have_ = 0, need_ = 4;
  unsigned char buffer_[kMostKey + 1], client_[kNonce], board_[kNonce];
};
