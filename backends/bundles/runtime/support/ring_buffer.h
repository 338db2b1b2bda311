// A queue of bytes, for what was received and not read, and written and not sent.
#pragma once
#include <cstddef>
#include <cstring>
#include <vector>

namespace tvm {
namespace support {

class RingBuffer {
 public:
  size_t bytes_available() const { return bytes_.size() - start_; }

  void Reserve(size_t size) { bytes_.reserve(start_ + size); }

  void Read(void* data, size_t size) {
    std::memcpy(data, bytes_.data() + start_, size);
    Consume(size);
  }
  void Write(const void* data, size_t size) {
    const char* at = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), at, at + size);
  }
  // `send(data, size)` takes some of at most `size` bytes and says how many.
  template <typename Send>
  size_t ReadWithCallback(Send send, size_t size) {
    const size_t moved = send(bytes_.data() + start_, size);
    Consume(moved);
    return moved;
  }
  // `receive(data, size)` writes at most `size` bytes and says how many.
  template <typename Receive>
  size_t WriteWithCallback(Receive receive, size_t size) {
    const size_t before = bytes_.size();
    bytes_.resize(before + size);
    const size_t moved = receive(bytes_.data() + before, size);
    bytes_.resize(before + moved);
    return moved;
  }

 private:
  void Consume(size_t size) {
    start_ += size;
    if (start_ == bytes_.size()) {
      bytes_.clear();
      start_ = 0;
    }
  }

  std::vector<char> bytes_;
  size_t start_ = 0;
};

}  // namespace support
}  // namespace tvm
