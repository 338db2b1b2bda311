// What a session may call beside TVM's runtime, and the folder that its files lie in.
#pragma once
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "regular.h"
#include "rpc_log.h"

extern const char kTvmVersion[], kReconveneVersion[];

namespace session {

constexpr int kMostPath = 4096, kMostMessage = 1 << 20, kMostWords = 64;
constexpr char kFolder[] = "reconvene-session-";

inline char folder[kMostPath];                // of the current session
inline char* launch[kMostWords] = {nullptr};  // what stands before programs that are run

// ---- the folder

inline int remove_entry(const char* path, const struct stat*, int, FTW*) { return remove(path); }

inline void remove_all(const char* path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

inline const char* base() {
  const char* chosen = getenv("TMPDIR");
  return chosen && *chosen ? chosen : "/tmp";
}

inline bool make_folder() {
  snprintf(folder, sizeof folder, "%s/%s%d-XXXXXX", base(), kFolder, static_cast<int>(getpid()));
  if (mkdtemp(folder)) return true;
  say("cannot make a folder '%s': %s; set TMPDIR to one with room", folder, strerror(errno));
  *folder = 0;
  return false;
}

inline void remove_folder() {
  if (*folder) remove_all(folder);
  *folder = 0;
}

// Removes the folders of servers that were killed: their names tell the process, which is there no more.
inline void remove_leftovers() {
  DIR* entries = opendir(base());
  if (!entries) return;
  while (const dirent* entry = readdir(entries)) {
    char path[kMostPath];
    struct stat facts;
    const bool ours = !strncmp(entry->d_name, kFolder, strlen(kFolder));
    const long process = ours ? strtol(entry->d_name + strlen(kFolder), nullptr, 10) : 0;
    if (process <= 0 || !kill(static_cast<pid_t>(process), 0) || errno != ESRCH) continue;
    const int length = snprintf(path, sizeof path, "%s/%s", base(), entry->d_name);
    if (length >= kMostPath || !regular::facts_of(path, &facts, false) || !S_ISDIR(facts.st_mode) || facts.st_uid != geteuid()) continue;
    remove_all(path);
  }
  closedir(entries);
}

// Where a client's file lies; a name only, never a path out of the folder.
inline bool inside(const char* name, char* path) {
  if (!name || !*name || *name == '.' || strchr(name, '/')) return false;
  return snprintf(path, kMostPath, "%s/%s", folder, name) < kMostPath;
}

// ---- what a session may call

inline int workpath(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count != 1 || !inside(calls::characters(values), path)) return calls::failed("a file's name has no folder");
  return calls::returned(answer, path, strlen(path));
}

inline int load_module(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count != 1 || !inside(calls::characters(values), path)) return calls::failed("a file's name has no folder");
  const TVMFFIAny value = calls::text(path);
  const char* error = calls::call_global("ffi.ModuleLoadFromFile", &value, 1, answer);
  return error ? calls::failed(error) : 0;
}

// How many bytes of a client's file arrived: TVM's upload does not notice a full disk.
inline int file_bytes(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count != 1 || !inside(calls::characters(values), path)) return calls::failed("a file's name has no folder");
  const int file = regular::open_file(path);
  *answer = calls::integer(file < 0 ? -1 : static_cast<int64_t>(lseek(file, 0, SEEK_END)));
  if (file >= 0) close(file);
  return 0;
}

// The board as JSON: what it is, and which TVM this is.
inline int about(void*, const TVMFFIAny*, int, TVMFFIAny* answer) {
  utsname system;
  uname(&system);
  char text[1024];
  const int length = snprintf(text, sizeof text,
                              "{\"tvm\": \"%s\", \"reconvene\": \"%s\", \"machine\": \"%s\", \"name\": \"%s\", "
                              "\"cores\": %ld}",
                              kTvmVersion, kReconveneVersion, system.machine, system.nodename,
                              sysconf(_SC_NPROCESSORS_ONLN));
  return calls::returned(answer, text, static_cast<size_t>(length));
}

struct Output {
  int pipe;
  char* data;
  size_t size;
};

// Reads what is there. False at the end.
inline bool drain(Output* output) {
  char part[65536];
  const ssize_t count = read(output->pipe, part, sizeof part);
  if (count <= 0) return false;
  if (output->size + static_cast<size_t>(count) > kMostMessage) return true;  // The rest of a flood is dropped.
  memcpy(output->data + output->size, part, static_cast<size_t>(count));
  output->size += static_cast<size_t>(count);
  return true;
}

[[noreturn]] inline void execute(char** words, int out, int err) {
  setpgid(0, 0);
  // A session that is killed leaves no program behind.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  dup2(out, 1);
  dup2(err, 2);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, 0);
  for (int i = 3; i < 256; ++i) close(i);
  if (chdir(folder) == 0) execvp(words[0], words);
  dprintf(2, "error: cannot run '%s': %s\n", words[0], strerror(errno));
  _exit(127);
}

// Runs an uploaded program in the session's folder: name, seconds it may take, arguments. Returns
// "STATUS SIZE\n", then SIZE bytes of stdout, then stderr; a negative status is a signal.
inline int run_program(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count < 2 || count > kMostWords / 2 || values[1].type_index != kTVMFFIInt ||
      !inside(calls::characters(values), path)) {
    return calls::failed("a program is run by its name, its seconds, and its arguments");
  }
  chmod(path, 0700);
  char* words[kMostWords] = {nullptr};
  int used = 0;
  while (launch[used]) words[used] = launch[used], ++used;
  words[used++] = path;
  for (int i = 2; i < count && used < kMostWords - 1; ++i) words[used++] = const_cast<char*>(calls::characters(&values[i]));
  int out[2], err[2];
  if (pipe(out) || pipe(err)) return calls::failed(strerror(errno));
  Output outputs[] = {{out[0], static_cast<char*>(malloc(kMostMessage)), 0},
                      {err[0], static_cast<char*>(malloc(kMostMessage)), 0}};
  if (!outputs[0].data || !outputs[1].data) return calls::failed("out of memory");
  const pid_t child = fork();
  if (child < 0) return calls::failed(strerror(errno));
  if (!child) execute(words, out[1], err[1]);
  close(out[1]), close(err[1]);
  const double end = seconds() + static_cast<double>(values[1].v_int64);
  bool late = false;
  for (int open_pipes = 3; open_pipes;) {
    pollfd waits[] = {{open_pipes & 1 ? out[0] : -1, POLLIN, 0}, {open_pipes & 2 ? err[0] : -1, POLLIN, 0}};
    const double left = end - seconds();
    if (left <= 0 || poll(waits, 2, static_cast<int>(left * 1e3) + 1) < 0) {
      late = left <= 0;
      break;
    }
    for (int i = 0; i < 2; ++i) {
      if (waits[i].revents && !drain(&outputs[i])) open_pipes &= ~(1 << i);
    }
  }
  if (late) kill(-child, SIGKILL), kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  close(out[0]), close(err[0]);
  int code = 0;
  if (late) {
    code = calls::failed("the program took longer than it may");
  } else {
    char* whole = static_cast<char*>(malloc(2 * kMostMessage + 64));
    int size = snprintf(whole, 64, "%d %zu\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status),
                        outputs[0].size);
    for (const Output& output : outputs) {
      memcpy(whole + size, output.data, output.size);
      size += static_cast<int>(output.size);
    }
    code = calls::returned(answer, whole, static_cast<size_t>(size));
    free(whole);
  }
  free(outputs[0].data), free(outputs[1].data);
  return code;
}

inline const char* define_calls() {
  const char* error = calls::define_global("tvm.rpc.server.workpath", workpath);
  if (!error) error = calls::define_global("tvm.rpc.server.load_module", load_module);
  if (!error) error = calls::define_global("reconvene.about", about);
  if (!error) error = calls::define_global("reconvene.bytes", file_bytes);
  if (!error) error = calls::define_global("reconvene.run", run_program);
  return error;
}

}  // namespace session
