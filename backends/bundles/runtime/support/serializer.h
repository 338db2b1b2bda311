// How values are written to a stream; see io.h. All boards are little-endian, so plain values are copied as they are.
#pragma once
#include <dlpack/dlpack.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/endian.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

namespace detail {

template <typename T>
struct Plain {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const T& value) { stream->Write(static_cast<const void*>(&value), sizeof value); }
  static bool Read(Stream* stream, T* value) {
    return stream->Read(static_cast<void*>(value), sizeof *value) == sizeof *value;
  }
};

struct Unknown {
  static constexpr bool enabled = false;
};

inline void WriteLength(Stream* stream, size_t length) { stream->Write<uint64_t>(length); }
inline bool ReadLength(Stream* stream, size_t* length) {
  uint64_t found = 0;
  if (!stream->Read<uint64_t>(&found)) return false;
  *length = static_cast<size_t>(found);
  return *length == found;
}

}  // namespace detail

template <typename T>
struct Serializer
    : std::conditional_t<std::is_arithmetic_v<T> || std::is_enum_v<T>, detail::Plain<T>, detail::Unknown> {};

template <>
struct Serializer<DLDataType> : detail::Plain<DLDataType> {};

template <>
struct Serializer<DLDevice> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const DLDevice& device) {
    stream->Write<int32_t>(device.device_type);
    stream->Write<int32_t>(device.device_id);
  }
  static bool Read(Stream* stream, DLDevice* device) {
    int32_t kind = 0;
    if (!stream->Read<int32_t>(&kind) || !stream->Read<int32_t>(&device->device_id)) return false;
    device->device_type = static_cast<DLDeviceType>(kind);
    return true;
  }
};

template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::string& text) {
    detail::WriteLength(stream, text.size());
    stream->Write(static_cast<const void*>(text.data()), text.size());
  }
  static bool Read(Stream* stream, std::string* text) {
    size_t length = 0;
    if (!detail::ReadLength(stream, &length)) return false;
    text->resize(length);
    return stream->Read(static_cast<void*>(text->data()), length) == length;
  }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const ffi::String& text) { stream->Write(std::string(text)); }
  static bool Read(Stream* stream, ffi::String* text) {
    std::string plain;
    if (!stream->Read(&plain)) return false;
    *text = plain;
    return true;
  }
};

template <typename First, typename Second>
struct Serializer<std::pair<First, Second>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::pair<First, Second>& pair) {
    stream->Write(pair.first);
    stream->Write(pair.second);
  }
  static bool Read(Stream* stream, std::pair<First, Second>* pair) {
    return stream->Read(&pair->first) && stream->Read(&pair->second);
  }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::vector<T>& values) {
    detail::WriteLength(stream, values.size());
    stream->WriteArray(values.data(), values.size());
  }
  static bool Read(Stream* stream, std::vector<T>* values) {
    size_t length = 0;
    if (!detail::ReadLength(stream, &length)) return false;
    values->resize(length);
    return stream->ReadArray(values->data(), length);
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const ffi::Array<T>& values) {
    stream->Write(std::vector<T>(values.begin(), values.end()));
  }
  static bool Read(Stream* stream, ffi::Array<T>* values) {
    std::vector<T> found;
    if (!stream->Read(&found)) return false;
    *values = ffi::Array<T>(found.begin(), found.end());
    return true;
  }
};

template <typename Key, typename Value>
struct Serializer<std::unordered_map<Key, Value>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::unordered_map<Key, Value>& map) {
    stream->Write(std::vector<std::pair<Key, Value>>(map.begin(), map.end()));
  }
  static bool Read(Stream* stream, std::unordered_map<Key, Value>* map) {
    std::vector<std::pair<Key, Value>> found;
    if (!stream->Read(&found)) return false;
    *map = std::unordered_map<Key, Value>(found.begin(), found.end());
    return true;
  }
};

}  // namespace support
}  // namespace tvm
