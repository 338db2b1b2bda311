// Memory that is given back all at once, after each message.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

namespace tvm {
namespace support {

class Arena {
 public:
  template <typename T>
  T* allocate_(int count = 1) {
    // new[] aligns for every fundamental type.
    blocks_.emplace_back(new std::max_align_t[(sizeof(T) * count + sizeof(std::max_align_t)) / sizeof(std::max_align_t)]);
    return reinterpret_cast<T*>(blocks_.back().get());
  }
  void RecycleAll() { blocks_.clear(); }

 private:
  std::vector<std::unique_ptr<std::max_align_t[]>> blocks_;
};

}  // namespace support
}  // namespace tvm
