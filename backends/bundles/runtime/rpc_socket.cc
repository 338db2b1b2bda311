// What the runtime's own sockets do for a server, whose sources need headers that the wheels lack: a session over an
// open socket, and the message that its time is over.
#include <errno.h>
#include <sys/socket.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "rpc_channel.h"
#include "rpc_endpoint.h"

namespace tvm {
namespace runtime {
namespace {

class Channel final : public RPCChannel {
 public:
  explicit Channel(int socket) : socket_(socket) {}
  ~Channel() final { close(socket_); }

  size_t Send(const void* data, size_t size) final { return Moved([&] { return send(socket_, data, size, MSG_NOSIGNAL); }); }
  size_t Recv(void* data, size_t size) final { return Moved([&] { return recv(socket_, data, size, 0); }); }

 private:
  template <typename Call>
  static size_t Moved(Call call) {
    for (;;) {
      const ssize_t count = call();
      if (count >= 0) return static_cast<size_t>(count);
      if (errno != EINTR) TVM_FFI_THROW(RuntimeError) << "the connection broke: " << std::strerror(errno);
    }
  }

  int socket_;
};

// Enough of a message's channel to write one.
struct Writer {
  int socket;

  void MessageStart(uint64_t) {}
  void MessageDone() {}
  void WriteRaw(const void* data, size_t size) {
    if (send(socket, data, size, MSG_NOSIGNAL) < 0) return;
  }
  template <typename T>
  void Write(const T& value) {
    WriteRaw(&value, sizeof value);
  }
  template <typename T>
  void WriteArray(const T* values, size_t count) {
    WriteRaw(values, sizeof(T) * count);
  }
  void ThrowError(RPCServerStatus) {}
};

void ServerLoop(int64_t socket) {
  RPCEndpoint::Create(std::make_unique<Channel>(static_cast<int>(socket)), "reconvene-server", "")->ServerLoop();
}

void ReturnException(int64_t socket, ffi::String message) {
  Writer writer{static_cast<int>(socket)};
  RPCReference::ReturnException(message.c_str(), &writer);
}

TVM_FFI_STATIC_INIT_BLOCK() {
  ffi::reflection::GlobalDef().def("rpc.ServerLoop", ServerLoop).def("rpc.ReturnException", ReturnException);
}

}  // namespace
}  // namespace runtime
}  // namespace tvm
