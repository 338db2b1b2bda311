// The sizes, counts and kinds in a session's messages, checked before TVM's runtime sees them.
//
// The runtime believes what a message says of itself: it makes room for whatever length is claimed, and its counts are of fewer
// bits than those on the wire, so a text of 4 GiB is written into a room of one byte. Here every message is followed as it
// arrives, and refused where a part does not fit into what is left of it. The runtime works on a message when all of it has
// come, so a message is never half believed. It reads by recv, and so by the one here: a program's functions come before those
// of libraries.
//
// Addresses are not checked: a session names its functions, arrays and memory by them, and may run programs anyway.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <tvm/ffi/c_api.h>

namespace messages {

// What TVM's rpc_reference.h calls RPCCode, and rpc_session.h kRuntimeRPCObjectRef; neither is a header for C.
constexpr int32_t kShutdown = 1, kInitServer = 2, kCallFunc = 3, kCopyFromRemote = 6, kCopyToRemote = 7;
constexpr int32_t kFirstSystemCall = 9;
constexpr int32_t kRemoteObject = kTVMFFIDynObjectBegin - 13;
// How many arguments a system call takes, from kGetGlobalFunc on. The runtime reads them without a look at how many there are.
constexpr int32_t kTaken[] = {1, 1, 1, 2, 4, 2, 2, 3, 2, 1, 2, 2, 1};
constexpr int32_t kSystemCalls = sizeof kTaken / sizeof *kTaken;
// Kinds of devices that the runtime has a table for: TVMDeviceExtType_End.
constexpr int32_t kDeviceKinds = 36;
// The runtime counts what it puts into its arena by an int.
constexpr uint64_t kMostInArena = INT32_MAX - 1, kMostTensorBits = INT64_MAX;

class Messages {
 public:
  explicit Messages(uint64_t most) : most_(most) { expect(kLength, 8); }

  // Follows what was read. False at the first message that is not as it should be, and ever after.
  bool within(const unsigned char* data, size_t size) {
    while (good_ && size) {
      if (skip_) {
        const size_t part = size < skip_ ? size : static_cast<size_t>(skip_);
        data += part, size -= part, skip_ -= part;
        continue;
      }
      item_[have_++] = *data++, --size;
      if (have_ < need_) continue;
      uint64_t value = 0;  // The boards are little-endian, as the wire is.
      memcpy(&value, item_, need_);
      have_ = 0;
      good_ = take(value);
    }
    return good_;
  }

 private:
  enum Step {
    kLength,      // of the message
    kCode,        // what it is
    kVersion,     // the length of the protocol's version
    kFunction,    // whose address is called
    kCount,       // of arguments
    kType,        // of an argument
    kObject,      // the type of an object
    kText,        // the length of a text that is kept in the arena
    kString,      // the length of a text that is an object
    kArgumentDevice,
    kAddress,     // of a tensor
    kDevice,      // of a tensor
    kRank,        // of a tensor
    kElement,     // of a tensor
    kDimension,   // of a tensor
    kOffset,      // of a tensor
    kCopied,      // bytes that are copied from or to it
  };

  // The next item has so many bytes of what is left.
  bool expect(Step step, size_t bytes) {
    step_ = step, need_ = bytes;
    if (step == kLength) return true;
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }

  // Bytes follow that say nothing of sizes.
  bool payload(uint64_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes, skip_ = bytes;
    return true;
  }

  bool take(uint64_t value) {
    const int32_t number = static_cast<int32_t>(value);
    switch (step_) {
      case kLength:
        if (!value) return expect(kLength, 8);
        left_ = value;
        return value <= most_ && expect(kCode, 4);
      case kCode:
        return begin(number);
      case kVersion:
        return payload(value) && expect(kCount, 4);
      case kFunction:
        return expect(kCount, 4);
      case kCount:
        arguments_ = number;
        return number >= least_ && static_cast<uint64_t>(number) <= left_ / 4 && argument();
      case kType:
        return typed(number);
      case kObject:
        if (number == kRemoteObject) return payload(8) && argument();
        return (number == kTVMFFIStr || number == kTVMFFIBytes) && expect(kString, 8);
      case kText:
        return value < kMostInArena && payload(value) && argument();
      case kString:
        return payload(value) && argument();
      case kArgumentDevice:
        return device(number) && argument();
      case kAddress:
        return expect(kDevice, 8);
      case kDevice:
        on_host_ = number == kDLCPU;
        return device(number) && expect(kRank, 4);
      case kRank:
        dimensions_ = number;
        return number >= 0 && static_cast<uint64_t>(number) <= left_ / 8 && expect(kElement, 4);
      case kElement:
        // A code, a number of bits, and how many are side by side.
        bits_ = (value >> 8 & 0xff) * (value >> 16);
        empty_ = false;
        return dimension();
      case kDimension:
        return multiplied(value) && dimension();
      case kOffset:
        offset_ = value;
        return copying_ ? expect(kCopied, 8) : argument();
      case kCopied:
        return copied(value);
    }
    return false;
  }

  bool begin(int32_t code) {
    least_ = 0, copying_ = 0;
    if (code == kShutdown) return end();
    if (code == kInitServer) return expect(kVersion, 8);
    if (code == kCallFunc) return expect(kFunction, 8);
    if (code == kCopyFromRemote || code == kCopyToRemote) {
      copying_ = code;
      return expect(kAddress, 8);
    }
    // Answers and the like are for clients.
    if (code < kFirstSystemCall || code >= kFirstSystemCall + kSystemCalls) return false;
    least_ = kTaken[code - kFirstSystemCall];
    return expect(kCount, 4);
  }

  bool end() { return !left_ && expect(kLength, 8); }

  bool argument() { return arguments_-- ? expect(kType, 4) : end(); }

  bool typed(int32_t type) {
    switch (type) {
      case kTVMFFINone:
        return argument();
      case kTVMFFIInt:
      case kTVMFFIBool:
      case kTVMFFIFloat:
      case kTVMFFIOpaquePtr:
      case kTVMFFIDataType:
      case kTVMFFIFunction:
      case kTVMFFIModule:
        return payload(8) && argument();
      case kTVMFFIDevice:
        return expect(kArgumentDevice, 8);
      case kTVMFFIRawStr:
      case kTVMFFIByteArrayPtr:
        return expect(kText, 8);
      case kTVMFFIDLTensorPtr:
        return expect(kAddress, 8);
    }
    return (type == kTVMFFISmallStr || type == kTVMFFISmallBytes || type >= kTVMFFIStaticObjectBegin) &&
           expect(kObject, 4);
  }

  static bool device(int32_t kind) { return kind >= 0 && kind < kDeviceKinds; }

  bool dimension() { return dimensions_-- ? expect(kDimension, 8) : expect(kOffset, 8); }

  // A tensor that has a dimension of 0 has no bits; even so the others have to fit.
  bool multiplied(uint64_t size) {
    if (!size) {
      empty_ = true;
      return true;
    }
    if (bits_ && size > kMostTensorBits / bits_) return false;
    bits_ *= size;
    return size <= kMostTensorBits;
  }

  bool copied(uint64_t bytes) {
    const uint64_t all = empty_ ? 0 : (bits_ + 7) / 8;
    if (offset_ > all || bytes > all - offset_ || (!on_host_ && bytes > kMostInArena)) return false;
    return (copying_ == kCopyFromRemote || payload(bytes)) && end();
  }

  const uint64_t most_;  // bytes of a message
  uint64_t left_ = 0;    // bytes of this one that nothing was said of yet
  uint64_t skip_ = 0;    // bytes that are coming, and say nothing of sizes
  Step step_ = kLength;
  size_t need_ = 0, have_ = 0;
  unsigned char item_[8];
  bool good_ = true;
  int32_t least_ = 0, arguments_ = 0, dimensions_ = 0, copying_ = 0;
  uint64_t bits_ = 0, offset_ = 0;
  bool empty_ = false, on_host_ = false;
};

inline int socket = -1;  // of the session
inline Messages* followed = nullptr;

}  // namespace messages

extern "C" ssize_t recv(int socket, void* data, size_t size, int flags) {
  const ssize_t count = recvfrom(socket, data, size, flags, nullptr, nullptr);
  if (count <= 0 || socket != messages::socket) return count;
  if (messages::followed->within(static_cast<const unsigned char*>(data), static_cast<size_t>(count))) return count;
  errno = EBADMSG;
  return -1;
}
