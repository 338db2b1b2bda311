// Opening files that are files: a pipe would block, and a device never end.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

namespace regular {

inline struct stat found;

inline int note(const char*, const struct stat* facts, int kind, FTW*) {
  if (kind == FTW_NS || kind == FTW_SLN) return 2;
  found = *facts;
  return 1;
}

// Facts of `path`, itself or what it leads to. Not by stat, which asks for a new C library.
inline bool facts_of(const char* path, struct stat* facts, bool follow = true) {
  if (nftw(path, note, 1, follow ? 0 : FTW_PHYS) != 1) return false;
  *facts = found;
  return true;
}

// A file's descriptor, or -1 if there is none, or it is no regular file; `reason` says which.
inline int open_file(const char* path) {
  struct stat facts;
  if (!facts_of(path, &facts)) return -1;
  if (!S_ISREG(facts.st_mode)) {
    errno = EINVAL;
    return -1;
  }
  return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

inline const char* reason() { return errno == EINVAL ? "it is no regular file" : strerror(errno); }

}  // namespace regular
