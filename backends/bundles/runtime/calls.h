// Calls into TVM's runtime through its C interface, so that a program needs no C++ library of its own.
#pragma once
#include <stdio.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

namespace calls {

inline char message[1024];

inline TVMFFIAny none() {
  TVMFFIAny value;
  memset(&value, 0, sizeof value);
  return value;
}

inline TVMFFIAny integer(int64_t number) {
  TVMFFIAny value = none();
  value.type_index = kTVMFFIInt;
  value.v_int64 = number;
  return value;
}

inline TVMFFIAny text(const char* characters) {
  TVMFFIAny value = none();
  value.type_index = kTVMFFIRawStr;
  value.v_c_str = characters;
  return value;
}

// The characters of an argument that is text of any kind, or nullptr.
inline const char* characters(const TVMFFIAny* value) {
  switch (value->type_index) {
    case kTVMFFIRawStr:
      return value->v_c_str;
    case kTVMFFISmallStr:
      return value->v_bytes;
    case kTVMFFIStr:
      return reinterpret_cast<const TVMFFIByteArray*>(reinterpret_cast<const char*>(value->v_obj) +
                                                      sizeof(TVMFFIObject))
          ->data;
  }
  return nullptr;
}

// Keeps the first line of the runtime's error in `message`.
inline const char* raised() {
  TVMFFIObjectHandle error = nullptr;
  TVMFFIErrorMoveFromRaised(&error);
  if (!error) return "unknown error";
  const TVMFFIErrorCell* cell = TVMFFIErrorGetCellPtr(error);
  snprintf(message, sizeof message, "%.*s", static_cast<int>(cell->message.size), cell->message.data);
  message[strcspn(message, "\n")] = 0;
  TVMFFIObjectDecRef(error);
  return message;
}

// Each returns nullptr, or what went wrong.
inline const char* call(TVMFFIObjectHandle function, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  *answer = none();
  return TVMFFIFunctionCall(function, const_cast<TVMFFIAny*>(values), count, answer) ? raised() : nullptr;
}

inline const char* call_global(const char* name, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  const TVMFFIByteArray key = {name, strlen(name)};
  TVMFFIObjectHandle function = nullptr;
  if (TVMFFIFunctionGetGlobal(&key, &function)) return raised();
  if (!function) {
    snprintf(message, sizeof message, "the runtime has no '%s'", name);
    return message;
  }
  const char* error = call(function, values, count, answer);
  TVMFFIObjectDecRef(function);
  return error;
}

inline const char* define_global(const char* name, TVMFFISafeCallType call) {
  const TVMFFIByteArray key = {name, strlen(name)};
  TVMFFIObjectHandle function = nullptr;
  if (TVMFFIFunctionCreate(nullptr, call, nullptr, &function)) return raised();
  const bool bad = TVMFFIFunctionSetGlobal(&key, function, 1);
  TVMFFIObjectDecRef(function);
  return bad ? raised() : nullptr;
}

// What a function that was called from outside returns.
inline int returned(TVMFFIAny* answer, const char* characters, size_t length) {
  const TVMFFIByteArray bytes = {characters, length};
  return TVMFFIStringFromByteArray(&bytes, answer);
}

inline int failed(const char* reason) {
  TVMFFIErrorSetRaisedFromCStr("RuntimeError", reason);
  return -1;
}

}  // namespace calls
