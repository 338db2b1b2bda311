// Tensors inside JSON are for the compiler; on a board nothing reads or writes them, and whoever tries is told so.
#pragma once
#include <tvm/ffi/error.h>
#include <tvm/support/io.h>

namespace tvm {
namespace support {

class Base64Stream : public Stream {
 public:
  explicit Base64Stream(Stream*) { TVM_FFI_THROW(RuntimeError) << "this runtime has no tensors in JSON"; }
  using Stream::Read;
  using Stream::Write;
  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void*, size_t) final { return 0; }
  void InitPosition() {}
  void Finish() {}
};
using Base64InStream = Base64Stream;
using Base64OutStream = Base64Stream;

}  // namespace support
}  // namespace tvm
