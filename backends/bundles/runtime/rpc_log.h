// What a server says: one line each, in which bytes of others are escaped and few.
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

constexpr int kBadInput = 2;

inline double seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

inline void say_all(const char* format, va_list values) {
  fputs("reconvene-server: ", stdout);
  vprintf(format, values);
  putchar('\n');
  fflush(stdout);
}

__attribute__((format(printf, 1, 2))) inline void say(const char* format, ...) {
  va_list values;
  va_start(values, format);
  say_all(format, values);
  va_end(values);
}

// What any client can make a server say is said ten times a minute at most, so that it cannot fill a disk.
__attribute__((format(printf, 1, 2))) inline void say_of_peer(const char* format, ...) {
  static double end = 0;
  static long said = 0;
  if (seconds() >= end) {
    if (said > 10) say("%ld more clients were turned away", said - 10);
    end = seconds() + 60, said = 0;
  }
  if (++said > 10) return;
  va_list values;
  va_start(values, format);
  say_all(format, values);
  va_end(values);
}

[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  va_end(values);
  exit(kBadInput);
}

// A peer's bytes as plain characters: others as \xNN, and no more than 64 of them.
class Escaped {
 public:
  explicit Escaped(const char* bytes) : Escaped(bytes, strlen(bytes)) {}

  Escaped(const char* bytes, size_t size) {
    size_t used = 0;
    for (size_t i = 0; i < size && i < kMost; ++i) {
      const unsigned char byte = static_cast<unsigned char>(bytes[i]);
      const bool plain = byte >= ' ' && byte < 0x7f && byte != '\\' && byte != '\'';
      used += static_cast<size_t>(snprintf(text_ + used, sizeof text_ - used, plain ? "%c" : "\\x%02x", byte));
    }
    if (size > kMost) snprintf(text_ + used, sizeof text_ - used, "...");
  }

  const char* text() const { return text_; }

 private:
  static constexpr size_t kMost = 64;
  char text_[4 * kMost + 4] = "";
};
