/* Calls to the host of a processor that is emulated or debugged: Arm's semihosting,
 * https://github.com/ARM-software/abi-aa/blob/main/semihosting/semihosting.rst */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { SYS_OPEN = 1, SYS_CLOSE = 2, SYS_WRITE0 = 4, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT_EXTENDED = 0x20 };
enum { MODE_READ = 1, MODE_WRITE = 5 }; /* "rb" and "wb" */

static inline intptr_t semihosting(int operation, const void *values) {
  register intptr_t r0 __asm("r0") = operation;
  register const void *r1 __asm("r1") = values;
  __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static inline void semihosting_say(const char *text) { semihosting(SYS_WRITE0, text); }

static inline void __attribute__((noreturn)) semihosting_exit(int code) {
  const intptr_t values[] = {0x20026, code}; /* the application ended */
  for (;;) semihosting(SYS_EXIT_EXTENDED, values);
}

/* A file of the host; negative if it cannot be opened. */
static inline intptr_t semihosting_open(int mode, const char *name, size_t length) {
  const intptr_t values[] = {(intptr_t)name, mode, (intptr_t)length};
  return semihosting(SYS_OPEN, values);
}

static inline void semihosting_close(intptr_t file) { semihosting(SYS_CLOSE, &file); }

/* Moves what comes next in a file to or from memory. Returns how many bytes were not moved. */
static inline size_t semihosting_move(int operation, intptr_t file, void *data, size_t size) {
  const intptr_t values[] = {file, (intptr_t)data, (intptr_t)size};
  return (size_t)semihosting(operation, values);
}
