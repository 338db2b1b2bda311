// A server for TVM's RPC on a board without Python, alone or in a pool that TVM's tracker manages.
//
// One session at a time, each in a process and a folder of its own: whatever a client does, the server stays, and two
// measurements never share the board. The wire format is TVM's; what a session may call is all of TVM's runtime and the
// functions `reconvene.*` below.
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"

extern const char kTvmVersion[], kReconveneVersion[];

namespace {

constexpr int kBadInput = 2, kMostPath = 4096, kMostKey = 512, kMostMessage = 1 << 20;
constexpr int kMagic = 0xff271, kMismatch = kMagic + 2, kTrackerMagic = 0x2f271;
constexpr int kPut = 3, kUpdateInfo = 5, kPending = 7;
constexpr int kTickSeconds = 2, kUnusedSeconds = 6, kHandshakeSeconds = 5, kGraceSeconds = 2;
constexpr int kMostWords = 64;

struct Options {
  const char* host = "0.0.0.0";
  int port = 9090;
  int port_end = 0;
  const char* key = "";
  char* tracker = nullptr;  // its host, cut at the colon
  const char* tracker_port = nullptr;
  const char* address = nullptr;
  int timeout = 600;
  char* launch[kMostWords] = {nullptr};
};

Options options;
char folder[kMostPath];  // of the current session
volatile sig_atomic_t stopped = 0;
pid_t session = 0;

void say(const char* format, ...) {
  va_list values;
  va_start(values, format);
  fputs("reconvene-server: ", stdout);
  vprintf(format, values);
  putchar('\n');
  fflush(stdout);
  va_end(values);
}

[[noreturn]] void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  va_end(values);
  exit(kBadInput);
}

double seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// ---- bytes over sockets

bool receive(int socket, void* data, size_t size) {
  char* at = static_cast<char*>(data);
  while (size) {
    const ssize_t count = recv(socket, at, size, 0);
    if (count < 0 && errno == EINTR && !stopped) continue;
    if (count <= 0) return false;
    at += count, size -= static_cast<size_t>(count);
  }
  return true;
}

bool transmit(int socket, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size) {
    const ssize_t count = send(socket, at, size, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR && !stopped) continue;
    if (count <= 0) return false;
    at += count, size -= static_cast<size_t>(count);
  }
  return true;
}

bool transmit_integer(int socket, int32_t number) { return transmit(socket, &number, sizeof number); }

bool transmit_text(int socket, const char* text) {
  const size_t length = strlen(text);
  return transmit_integer(socket, static_cast<int32_t>(length)) && transmit(socket, text, length);
}

// A socket whose other end may die: calls end after `wait` seconds, and a machine that is gone is noticed.
void guard(int socket, int wait) {
  const timeval limit = {wait, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const int on = 1, idle = 10, interval = 5, count = 3;
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// ---- the session's folder

int remove_entry(const char* path, const struct stat*, int, FTW*) { return remove(path); }

void make_folder() {
  const char* base = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%s/reconvene-XXXXXX", base && *base ? base : "/tmp");
  if (!mkdtemp(folder)) fail("cannot make a folder '%s': %s; set TMPDIR to one with room", folder, strerror(errno));
}

void remove_folder() {
  if (*folder) nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  *folder = 0;
}

// Where a client's file lies; a name only, never a path out of the folder.
bool inside(const char* name, char* path) {
  if (!name || !*name || *name == '.' || strchr(name, '/')) return false;
  return snprintf(path, kMostPath, "%s/%s", folder, name) < kMostPath;
}

// ---- what a session may call

int workpath(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count != 1 || !inside(calls::characters(values), path)) return calls::failed("a file's name has no folder");
  return calls::returned(answer, path, strlen(path));
}

int load_module(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count != 1 || !inside(calls::characters(values), path)) return calls::failed("a file's name has no folder");
  const TVMFFIAny value = calls::text(path);
  const char* error = calls::call_global("ffi.ModuleLoadFromFile", &value, 1, answer);
  return error ? calls::failed(error) : 0;
}

// How many bytes of a client's file arrived: TVM's upload does not notice a full disk.
int file_bytes(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count != 1 || !inside(calls::characters(values), path)) return calls::failed("a file's name has no folder");
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  *answer = calls::integer(file < 0 ? -1 : static_cast<int64_t>(lseek(file, 0, SEEK_END)));
  if (file >= 0) close(file);
  return 0;
}

// The board as JSON: what it is, and which TVM this is.
int about(void*, const TVMFFIAny*, int, TVMFFIAny* answer) {
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
bool drain(Output* output) {
  char part[65536];
  const ssize_t count = read(output->pipe, part, sizeof part);
  if (count <= 0) return false;
  if (output->size + static_cast<size_t>(count) > kMostMessage) return true;  // The rest of a flood is dropped.
  memcpy(output->data + output->size, part, static_cast<size_t>(count));
  output->size += static_cast<size_t>(count);
  return true;
}

[[noreturn]] void execute(char** words, int out, int err) {
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
int run_program(void*, const TVMFFIAny* values, int count, TVMFFIAny* answer) {
  char path[kMostPath];
  if (count < 2 || count > kMostWords / 2 || values[1].type_index != kTVMFFIInt ||
      !inside(calls::characters(values), path)) {
    return calls::failed("a program is run by its name, its seconds, and its arguments");
  }
  chmod(path, 0700);
  char* words[kMostWords] = {nullptr};
  int used = 0;
  while (options.launch[used]) words[used] = options.launch[used], ++used;
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

// ---- TVM's tracker: messages are JSON with their length in front

int tracker = -1;
char match_key[kMostKey];

// Sends a message; the answer, which the caller frees, or nullptr when the tracker is gone.
char* ask_tracker(const char* message) {
  int32_t length = 0;
  if (!transmit_text(tracker, message) || !receive(tracker, &length, sizeof length)) return nullptr;
  if (length < 0 || length > kMostMessage) return nullptr;
  char* answer = static_cast<char*>(calloc(static_cast<size_t>(length) + 1, 1));
  if (answer && receive(tracker, answer, static_cast<size_t>(length))) return answer;
  free(answer);
  return nullptr;
}

bool tell_tracker(const char* message) {
  char* answer = ask_tracker(message);
  const bool good = answer && !strcmp(answer, "0");
  free(answer);
  return good;
}

void leave_tracker() {
  if (tracker >= 0) close(tracker);
  tracker = -1;
}

const char* quoted_address() {
  static char text[300];
  if (!options.address) return "null";
  snprintf(text, sizeof text, "\"%s\"", options.address);
  return text;
}

// A key that the next client gets from the tracker, and with it this board.
bool offer_board() {
  static unsigned count = 0;
  char message[3 * kMostKey];
  snprintf(match_key, sizeof match_key, "%s:0.%d%u%ld", options.key, static_cast<int>(getpid()), count++,
           static_cast<long>(time(nullptr)));
  snprintf(message, sizeof message, "[%d, \"%s\", [%d, \"%s\"], %s]", kPut, options.key, options.port, match_key,
           quoted_address());
  return tell_tracker(message);
}

int connected(const char* host, const char* port) {
  addrinfo hints, *found = nullptr;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host, port, &hints, &found)) return -1;
  int made = -1;
  for (addrinfo* at = found; at && made < 0; at = at->ai_next) {
    made = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, 0);
    if (made < 0) continue;
    guard(made, kHandshakeSeconds);
    if (connect(made, at->ai_addr, at->ai_addrlen)) close(made), made = -1;
  }
  freeaddrinfo(found);
  return made;
}

bool join_tracker() {
  tracker = connected(options.tracker, options.tracker_port);
  int32_t magic = 0;
  char message[2 * kMostKey];
  snprintf(message, sizeof message, "[%d, {\"key\": \"server:%s\", \"addr\": [%s, %d]}]", kUpdateInfo, options.key,
           quoted_address(), options.port);
  const bool good = tracker >= 0 && transmit_integer(tracker, kTrackerMagic) &&
                    receive(tracker, &magic, sizeof magic) && magic == kTrackerMagic && tell_tracker(message) &&
                    offer_board();
  if (!good) leave_tracker();
  return good;
}

// Joins the tracker, or a new one in its place, and renews a key that a client took and never used.
void keep_tracker() {
  static bool told = false;
  static double unused = 0;
  if (!options.tracker) return;
  if (tracker < 0) {
    if (join_tracker()) {
      say("registered with the tracker %s:%s as '%s'", options.tracker, options.tracker_port, options.key);
      told = false, unused = 0;
    } else if (!told) {
      say("cannot reach the tracker %s:%s; trying on", options.tracker, options.tracker_port);
      told = true;
    }
    return;
  }
  char message[16];
  snprintf(message, sizeof message, "[%d]", kPending);
  char* pending = ask_tracker(message);
  if (!pending) {
    leave_tracker();
    return;
  }
  char quoted[kMostKey + 2];
  snprintf(quoted, sizeof quoted, "\"%s\"", match_key);
  if (strstr(pending, quoted)) {
    unused = 0;
  } else if (unused == 0) {
    unused = seconds();
  } else if (seconds() - unused > kUnusedSeconds) {
    unused = 0;
    if (!offer_board()) leave_tracker();
  }
  free(pending);
}

// ---- sessions

// Who it is, and how many seconds it asks for. False for a client that has no right to this board.
bool shake_hands(int client, int* timeout) {
  int32_t magic = 0, length = 0;
  char key[kMostKey] = "", expected[kMostKey + 8], own[kMostKey + 8];
  guard(client, kHandshakeSeconds);
  if (!receive(client, &magic, sizeof magic) || magic != kMagic || !receive(client, &length, sizeof length)) return false;
  if (length < 0 || length >= kMostKey || !receive(client, key, static_cast<size_t>(length))) return false;
  snprintf(expected, sizeof expected, "client:%s", options.tracker ? match_key : options.key);
  snprintf(own, sizeof own, "server:%s", options.key);
  char* rest = strchr(key, ' ');
  if (rest) *rest++ = 0;
  if (strcmp(key, expected)) {
    transmit_integer(client, kMismatch);
    say("a client asked for '%s', which this board is not", strncmp(key, "client:", 7) ? key : key + 7);
    return false;
  }
  const char* asked = rest ? strstr(rest, "-timeout=") : nullptr;
  const double wanted = asked ? atof(asked + 9) : 0;
  if (wanted >= 1 && wanted < *timeout) *timeout = static_cast<int>(wanted);
  return transmit_integer(client, kMagic) && transmit_text(client, own);
}

[[noreturn]] void serve(int client) {
  setpgid(0, 0);
  // A server that is killed leaves no session behind.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  guard(client, 0);
  if (chdir(folder)) _exit(1);
  TVMFFIAny answer;
  const char* error = calls::define_global("tvm.rpc.server.workpath", workpath);
  if (!error) error = calls::define_global("tvm.rpc.server.load_module", load_module);
  if (!error) error = calls::define_global("reconvene.about", about);
  if (!error) error = calls::define_global("reconvene.bytes", file_bytes);
  if (!error) error = calls::define_global("reconvene.run", run_program);
  const TVMFFIAny socket = calls::integer(client);
  if (!error) error = calls::call_global("rpc.ServerLoop", &socket, 1, &answer);
  if (error) {
    say("the session failed: %s", error);
    _exit(1);
  }
  _exit(0);
}

void end_session() {
  kill(-session, SIGKILL);
  kill(session, SIGKILL);
}

// Waits until the session is over: ended by its client, by its time, or because its client is gone.
void watch(int client, int timeout) {
  const double end = seconds() + timeout;
  double gone = 0;
  int status = 0;
  while (waitpid(session, &status, WNOHANG) == 0) {
    pollfd wait = {client, POLLRDHUP, 0};
    if (gone == 0) {
      if (poll(&wait, 1, 20) > 0 && wait.revents & (POLLRDHUP | POLLHUP | POLLERR)) gone = seconds();
    } else {
      usleep(5000);
    }
    const bool late = seconds() > end;
    if (!stopped && !late && !(gone != 0 && seconds() - gone > kGraceSeconds)) continue;
    end_session();
    waitpid(session, &status, 0);
    if (late && gone == 0) {
      char reason[128];
      snprintf(reason, sizeof reason, "RPCSessionTimeoutError: the session's %d seconds are over", timeout);
      TVMFFIAny answer;
      const TVMFFIAny values[] = {calls::integer(client), calls::text(reason)};
      calls::call_global("rpc.ReturnException", values, 2, &answer);
    }
    if (!stopped) say("session ended: %s", late ? "its time is over" : "its client is gone");
    return;
  }
  // What the session left running, if anything.
  kill(-session, SIGKILL);
  if (WIFSIGNALED(status)) say("session ended by signal %d", WTERMSIG(status));
}

void take(int client) {
  int timeout = options.timeout;
  if (shake_hands(client, &timeout)) {
    make_folder();
    session = fork();
    if (session < 0) fail("cannot start a session: %s", strerror(errno));
    if (session == 0) serve(client);
    setpgid(session, session);
    watch(client, timeout);
    session = 0;
    remove_folder();
    if (tracker >= 0 && !offer_board()) leave_tracker();
  }
  close(client);
}

// ---- start

int listening() {
  const int asked = options.port, last = options.port_end ? options.port_end : asked ? asked + 9 : 0;
  for (int port = asked; port <= last; ++port) {
    const int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    addrinfo hints, *found = nullptr;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(options.host, service, &hints, &found)) fail("unknown address '%s'; give one of this machine", options.host);
    const bool bound = !bind(made, found->ai_addr, found->ai_addrlen) && !listen(made, 8);
    const int reason = errno;
    freeaddrinfo(found);
    if (bound) {
      sockaddr_in got;
      socklen_t size = sizeof got;
      getsockname(made, reinterpret_cast<sockaddr*>(&got), &size);
      options.port = ntohs(got.sin_port);
      return made;
    }
    close(made);
    if (reason != EADDRINUSE) fail("cannot listen on %s:%d: %s", options.host, port, strerror(reason));
  }
  fail("ports %d to %d are all taken; choose another with --port", asked, last);
}

void usage() {
  printf(
      "usage: reconvene-server [--port N] [--key NAME] [--tracker HOST:PORT]\n"
      "  --host ADDRESS       listen on this address (0.0.0.0: all)\n"
      "  --port N             try this port and the nine after it (9090); 0 takes any\n"
      "  --port-end N         the last port to try\n"
      "  --key NAME           what clients ask for; needed with --tracker\n"
      "  --tracker HOST:PORT  join the pool of TVM's tracker there\n"
      "  --address HOST       where clients reach this board, if the tracker sees another address\n"
      "  --timeout SECONDS    the most a session may take (600)\n"
      "  --launch COMMAND     what stands before programs that are run, such as 'taskset -c 3'\n"
      "Whoever reaches the port may run programs here: keep it inside your own network.\n"
      "TVM %s, reconvene %s\n",
      kTvmVersion, kReconveneVersion);
}

int number(const char* option, const char* text, long least, long most) {
  char* end = nullptr;
  const long value = text ? strtol(text, &end, 10) : 0;
  if (!text || end == text || *end || value < least || value > most) {
    fail("%s takes a number from %ld to %ld, got '%s'", option, least, most, text ? text : "");
  }
  return static_cast<int>(value);
}

void parse(int count, char** words) {
  for (int i = 1; i < count; ++i) {
    const char* word = words[i];
    if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
      usage();
      exit(0);
    }
    char* next = i + 1 < count ? words[++i] : nullptr;
    if (!next) fail("%s takes a value; see --help", word);
    if (!strcmp(word, "--host")) {
      options.host = next;
    } else if (!strcmp(word, "--port")) {
      options.port = number(word, next, 0, 65535);
    } else if (!strcmp(word, "--port-end")) {
      options.port_end = number(word, next, 1, 65535);
    } else if (!strcmp(word, "--key")) {
      if (strlen(next) > 100 || strpbrk(next, "\"\\ :\n")) fail("key '%s' has a character that keys do not have", next);
      options.key = next;
    } else if (!strcmp(word, "--address")) {
      if (strlen(next) > 200 || strpbrk(next, "\"\\")) fail("'%s' is no address", next);
      options.address = next;
    } else if (!strcmp(word, "--timeout")) {
      options.timeout = number(word, next, 1, 1000000);
    } else if (!strcmp(word, "--tracker")) {
      char* colon = strrchr(next, ':');
      if (!colon || colon == next || !colon[1]) fail("--tracker takes HOST:PORT, got '%s'", next);
      *colon = 0;
      options.tracker = next, options.tracker_port = colon + 1;
    } else if (!strcmp(word, "--launch")) {
      int used = 0;
      for (char* part = strtok(next, " "); part && used < kMostWords / 2; part = strtok(nullptr, " ")) options.launch[used++] = part;
    } else {
      fail("unknown option '%s'; see --help", word);
    }
  }
  if (options.tracker && !*options.key) fail("a board in a pool needs a --key, such as rpi4");
  if (options.port_end && options.port_end < options.port) fail("--port-end %d is below --port %d", options.port_end, options.port);
}

void on_stop(int) {
  stopped = 1;
  if (session > 0) kill(-session, SIGKILL);
}

}  // namespace

int main(int count, char** words) {
  struct sigaction stop;
  memset(&stop, 0, sizeof stop);
  stop.sa_handler = on_stop;
  sigaction(SIGTERM, &stop, nullptr);
  sigaction(SIGINT, &stop, nullptr);
  signal(SIGPIPE, SIG_IGN);
  parse(count, words);
  const int asked = options.port, listener = listening();
  if (asked && asked != options.port) say("port %d is taken", asked);
  say("listening on %s:%d", options.host, options.port);
  for (double tick = 0; !stopped;) {
    if (seconds() >= tick) keep_tracker(), tick = seconds() + kTickSeconds;
    pollfd wait = {listener, POLLIN, 0};
    if (poll(&wait, 1, 250) <= 0) continue;
    const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (client >= 0) take(client);
  }
  remove_folder();
  say("stopped");
  return 0;
}
