// A server for TVM's RPC on a board without Python, alone or in a pool that TVM's tracker manages.
//
// One session at a time, each in a process and a folder of its own: whatever a client does, the server stays, and two
// measurements never share the board. Meanwhile others greet and wait their turn, or are turned away. The wire format is TVM's,
// behind a proof that the client knows the board's key (rpc_greeting.h); what a session may call is all of TVM's runtime and
// the functions of rpc_session.h.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "calls.h"
#include "regular.h"
#include "rpc_bytes.h"
#include "rpc_greeting.h"
#include "rpc_log.h"
#include "rpc_messages.h"
#include "rpc_session.h"
#include "rpc_tracker.h"

namespace {

constexpr int kTickSeconds = 2, kGraceSeconds = 2, kWaitSeconds = 120;
constexpr int kMostGreetings = 16, kMostWaiting = 8;

struct Options {
  const char* host = "127.0.0.1";
  int port = 9090;
  int port_end = 0;
  const char* key = "";
  char* tracker = nullptr;  // its host, cut at the colon
  const char* tracker_port = nullptr;
  const char* address = nullptr;
  int timeout = 600;
  int idle = 120;
  double handshake = 5;
  bool without_key = false;
};

Options options;
Secret secret;
Tracker* tracker = nullptr;
volatile pid_t running = 0;  // the process of the session

// ---- a session

struct Client {
  int socket;
  int timeout;
  double end;  // of its wait, then of its session
  double gone = 0;
};

[[noreturn]] void serve(int socket) {
  setpgid(0, 0);
  // A server that is killed leaves no session behind.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  memset(secret.bytes, 0, sizeof secret.bytes);
  guard(socket, options.idle);
  const uint64_t memory = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  messages::Messages followed(memory / 4);
  messages::socket = socket, messages::followed = &followed;
#if !defined(__SANITIZE_ADDRESS__)
  // A session that takes all memory ends, and not the board. (The address sanitiser takes more than that itself.)
  const rlimit most = {static_cast<rlim_t>(memory / 4 * 3), static_cast<rlim_t>(memory / 4 * 3)};
  setrlimit(RLIMIT_DATA, &most);
#endif
  if (chdir(session::folder)) _exit(1);
  TVMFFIAny answer;
  const char* error = session::define_calls();
  const TVMFFIAny number = calls::integer(socket);
  if (!error) error = calls::call_global("rpc.ServerLoop", &number, 1, &answer);
  if (error) {
    say("the session failed: %s", Escaped(error).text());
    _exit(1);
  }
  _exit(0);
}

void end_session() {
  kill(-running, SIGKILL);
  kill(running, SIGKILL);
}

// Starts the session of a client that was let in. False if it is gone already, or there is no room.
bool begin(Client* client) {
  char own[kMostKey + 8];
  snprintf(own, sizeof own, "server:%s", options.key);
  const double end = seconds() + options.handshake;
  if (!transmit_integer(client->socket, kMagic, end) || !transmit_text(client->socket, own, end)) return false;
  if (!session::make_folder()) return false;
  client->end = seconds() + client->timeout;
  running = fork();
  if (running < 0) {
    running = 0;
    say("cannot start a session: %s", strerror(errno));
    session::remove_folder();
    return false;
  }
  if (running == 0) {
    fcntl(client->socket, F_SETFL, 0);
    serve(client->socket);
  }
  setpgid(running, running);
  return true;
}

// Whether the session is over: ended by its client, by its time, or because its client is gone.
bool over(Client* client) {
  int status = 0;
  if (waitpid(running, &status, WNOHANG) != 0) {
    // What the session left running, if anything.
    kill(-running, SIGKILL);
    if (WIFSIGNALED(status)) say("session ended by signal %d", WTERMSIG(status));
    return true;
  }
  pollfd wait = {client->socket, POLLRDHUP, 0};
  if (client->gone == 0 && poll(&wait, 1, 0) > 0 && wait.revents & (POLLRDHUP | POLLHUP | POLLERR)) {
    client->gone = seconds();
  }
  const bool late = seconds() > client->end;
  if (!stopped && !late && !(client->gone != 0 && seconds() - client->gone > kGraceSeconds)) return false;
  end_session();
  waitpid(running, &status, 0);
  if (late && client->gone == 0) {
    char reason[128];
    snprintf(reason, sizeof reason, "RPCSessionTimeoutError: the session's %d seconds are over", client->timeout);
    TVMFFIAny answer;
    const TVMFFIAny values[] = {calls::integer(client->socket), calls::text(reason)};
    guard(client->socket, 1);
    calls::call_global("rpc.ReturnException", values, 2, &answer);
  }
  if (!stopped) say("session ended: %s", late ? "its time is over" : "its client is gone");
  return true;
}

// ---- who greets, who waits, and who is served

class Clients {
 public:
  bool busy() const { return served_ || waiting_count_; }

  void accept_from(int listener) {
    const int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) {
      if (errno == EMFILE || errno == ENFILE) usleep(50000);
      return;
    }
    guard(socket, 0);
    // The one that has been at it for longest goes: who knows the key needs no time for it.
    if (greeting_count_ == kMostGreetings) drop(0, "is too slow, and others came");
    greetings_[greeting_count_] = new Greeting(socket, &secret, seconds() + options.handshake);
    sockets_[greeting_count_++] = socket;
  }

  void go_on() {
    for (int i = 0; i < greeting_count_;) {
      const bool full = waiting_count_ == kMostWaiting || (tracker->any() && busy());
      const Greeting::State state = greetings_[i]->go_on(full && !tracker->any());
      if (state == Greeting::kGoing) {
        if (seconds() <= greetings_[i]->end) {
          ++i;
        } else {
          drop(i, "did not say in time who it is");
        }
      } else if (state == Greeting::kDone && let_in(greetings_[i]->asked(), sockets_[i], full)) {
        forget(i);
      } else {
        drop(i, nullptr);
      }
    }
    for (int i = 0; i < waiting_count_;) {
      pollfd wait = {waiting_[i].socket, POLLRDHUP, 0};
      const bool gone = poll(&wait, 1, 0) > 0 && wait.revents & (POLLRDHUP | POLLHUP | POLLERR);
      if (gone || seconds() > waiting_[i].end) {
        close(waiting_[i].socket);
        take(i);
      } else {
        ++i;
      }
    }
    if (served_ && over(&client_)) finish();
    while (!served_ && waiting_count_ && !stopped) {
      client_ = take(0);
      served_ = begin(&client_);
      if (!served_) finish();
    }
  }

  // Adds what `go_on` waits for. Returns how many there are.
  int poll_for(pollfd* waits) const {
    for (int i = 0; i < greeting_count_; ++i) waits[i] = {sockets_[i], POLLIN, 0};
    return greeting_count_;
  }

  bool serving() const { return served_; }

  void stop() {
    if (!served_) return;
    end_session();
    int status;
    waitpid(running, &status, 0);
    finish();
  }

 private:
  // Whether a client gets the board, or may wait for it.
  bool let_in(char* asked, int socket, bool full) {
    char expected[kMostKey + 8];
    snprintf(expected, sizeof expected, "client:%s", tracker->any() ? tracker->match_key() : options.key);
    char* rest = strchr(asked, ' ');
    if (rest) *rest++ = 0;
    if (full || strcmp(asked, expected)) {
      send(socket, &kMismatch, sizeof kMismatch, MSG_DONTWAIT | MSG_NOSIGNAL);
      const char* name = strncmp(asked, "client:", 7) ? asked : asked + 7;
      say_of_peer("a client asked for '%s', which this board is not", Escaped(name).text());
      return false;
    }
    const char* wish = rest ? strstr(rest, "-timeout=") : nullptr;
    const double wanted = wish ? strtod(wish + 9, nullptr) : 0;
    const int timeout = wanted >= 1 && wanted < options.timeout ? static_cast<int>(wanted) : options.timeout;
    waiting_[waiting_count_++] = {socket, timeout, seconds() + kWaitSeconds};
    return true;
  }

  void finish() {
    close(client_.socket);
    running = 0;
    served_ = false;
    session::remove_folder();
    tracker->offer();
  }

  Client take(int index) {
    const Client client = waiting_[index];
    --waiting_count_;
    for (int i = index; i < waiting_count_; ++i) waiting_[i] = waiting_[i + 1];
    return client;
  }

  void drop(int index, const char* reason) {
    if (reason) say_of_peer("a client %s", reason);
    close(sockets_[index]);
    forget(index);
  }

  void forget(int index) {
    delete greetings_[index];
    --greeting_count_;
    for (int i = index; i < greeting_count_; ++i) {
      greetings_[i] = greetings_[i + 1];
      sockets_[i] = sockets_[i + 1];
    }
  }

  Greeting* greetings_[kMostGreetings];
  int sockets_[kMostGreetings], greeting_count_ = 0, waiting_count_ = 0;
  Client waiting_[kMostWaiting], client_;
  bool served_ = false;
};

// ---- start

// The port that was taken, which is options.port from then on.
int listening() {
  const int asked = options.port, last = options.port_end ? options.port_end : asked ? asked + 9 : 0;
  addrinfo hints, *found = nullptr;
  memset(&hints, 0, sizeof hints);
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(options.host, nullptr, &hints, &found)) {
    fail("unknown address '%s'; give one of this machine", options.host);
  }
  sockaddr_in place;
  memcpy(&place, found->ai_addr, sizeof place);
  freeaddrinfo(found);
  if (!secret.size && !options.without_key && ntohl(place.sin_addr.s_addr) >> 24 != 127) {
    fail("whoever reaches %s could run programs here; give a --key-file, stay on --host 127.0.0.1, or say --without-key",
         options.host);
  }
  for (int port = asked; port <= last; ++port) {
    const int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    place.sin_port = htons(static_cast<uint16_t>(port));
    if (!bind(made, reinterpret_cast<sockaddr*>(&place), sizeof place) && !listen(made, 64)) {
      socklen_t size = sizeof place;
      getsockname(made, reinterpret_cast<sockaddr*>(&place), &size);
      options.port = ntohs(place.sin_port);
      return made;
    }
    const int reason = errno;
    close(made);
    if (reason != EADDRINUSE) fail("cannot listen on %s:%d: %s", options.host, port, strerror(reason));
  }
  fail("ports %d to %d are all taken; choose another with --port", asked, last);
}

void read_secret(const char* path) {
  struct stat facts;
  if (!regular::facts_of(path, &facts)) fail("cannot read the key '%s': %s", path, strerror(errno));
  if (!S_ISREG(facts.st_mode)) fail("the key '%s' is no regular file", path);
  if (facts.st_mode & (S_IRWXG | S_IRWXO)) fail("others may read the key '%s'; chmod 600 it", path);
  const int file = regular::open_file(path);
  if (file < 0) fail("cannot read the key '%s': %s", path, strerror(errno));
  const ssize_t count = read(file, secret.bytes, sizeof secret.bytes);
  close(file);
  size_t size = count < 0 ? 0 : static_cast<size_t>(count);
  while (size && strchr(" \t\r\n", secret.bytes[size - 1]) && secret.bytes[size - 1]) --size;
  if (size < kLeastSecret || count == static_cast<ssize_t>(sizeof secret.bytes)) {
    fail("the key '%s' has to have from %zu to %zu bytes; make one: openssl rand -hex 32", path, kLeastSecret,
         kMostSecret - 1);
  }
  secret.size = size;
}

void usage() {
  printf(
      "usage: reconvene-server [--host ADDRESS] [--key-file FILE] [--port N] [--key NAME] [--tracker HOST:PORT]\n"
      "  --host ADDRESS       listen on this address (127.0.0.1: this machine only; 0.0.0.0: all), not without a key\n"
      "  --key-file FILE      clients have to know what is in it: 16 bytes or more, chmod 600\n"
      "  --without-key        let everybody in who reaches the port, and run what they send\n"
      "  --port N             try this port and the nine after it (9090); 0 takes any\n"
      "  --port-end N         the last port to try\n"
      "  --key NAME           what clients ask for; needed with --tracker; no secret\n"
      "  --tracker HOST:PORT  join the pool of TVM's tracker there\n"
      "  --address HOST       where clients reach this board, if the tracker sees another address\n"
      "  --timeout SECONDS    the most a session may take (600)\n"
      "  --idle SECONDS       the most a session may be silent (120)\n"
      "  --handshake SECONDS  the most a client may take to say who it is (5)\n"
      "  --launch COMMAND     what stands before programs that are run, such as 'taskset -c 3'\n"
      "Whoever knows the key may run programs here.\n"
      "TVM %s, reconvene %s\n",
      kTvmVersion, kReconveneVersion);
}

double number(const char* option, const char* text, double least, double most, bool whole = true) {
  char* end = nullptr;
  const double value = text ? strtod(text, &end) : 0;
  if (!text || end == text || *end || !(value >= least && value <= most) ||
      (whole && value != static_cast<double>(static_cast<long>(value)))) {
    fail("%s takes a number from %g to %g, got '%s'", option, least, most, text ? text : "");
  }
  return value;
}

void parse(int count, char** words) {
  for (int i = 1; i < count; ++i) {
    const char* word = words[i];
    if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
      usage();
      exit(0);
    }
    if (!strcmp(word, "--without-key")) {
      options.without_key = true;
      continue;
    }
    char* next = i + 1 < count ? words[++i] : nullptr;
    if (!next) fail("%s takes a value; see --help", word);
    if (!strcmp(word, "--host")) {
      options.host = next;
    } else if (!strcmp(word, "--port")) {
      options.port = static_cast<int>(number(word, next, 0, 65535));
    } else if (!strcmp(word, "--port-end")) {
      options.port_end = static_cast<int>(number(word, next, 1, 65535));
    } else if (!strcmp(word, "--key")) {
      if (strlen(next) > 100 || strpbrk(next, "\"\\ :\n")) fail("key '%s' has a character that keys do not have", next);
      options.key = next;
    } else if (!strcmp(word, "--key-file")) {
      read_secret(next);
    } else if (!strcmp(word, "--address")) {
      if (strlen(next) > 200 || strpbrk(next, "\"\\")) fail("'%s' is no address", next);
      options.address = next;
    } else if (!strcmp(word, "--timeout")) {
      options.timeout = static_cast<int>(number(word, next, 1, 1e6));
    } else if (!strcmp(word, "--idle")) {
      options.idle = static_cast<int>(number(word, next, 1, 1e6));
    } else if (!strcmp(word, "--handshake")) {
      options.handshake = number(word, next, 0.01, 3600, false);
    } else if (!strcmp(word, "--tracker")) {
      char* colon = strrchr(next, ':');
      if (!colon || colon == next || !colon[1]) fail("--tracker takes HOST:PORT, got '%s'", next);
      *colon = 0;
      options.tracker = next, options.tracker_port = colon + 1;
    } else if (!strcmp(word, "--launch")) {
      int used = 0;
      for (char* part = strtok(next, " "); part && used < session::kMostWords / 2; part = strtok(nullptr, " ")) {
        session::launch[used++] = part;
      }
    } else {
      fail("unknown option '%s'; see --help", word);
    }
  }
  if (options.tracker && !*options.key) fail("a board in a pool needs a --key, such as rpi4");
  if (secret.size && options.without_key) fail("there are a --key-file and --without-key; leave out one of the two");
  if (options.port_end && options.port_end < options.port) {
    fail("--port-end %d is below --port %d", options.port_end, options.port);
  }
}

void on_stop(int) {
  stopped = 1;
  if (running > 0) kill(-running, SIGKILL);
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
  session::remove_leftovers();
  const int asked = options.port, listener = listening();
  if (asked && asked != options.port) say("port %d is taken", asked);
  if (!secret.size) say("without a --key-file, whoever reaches the port may run programs here");
  say("listening on %s:%d", options.host, options.port);
  Tracker pool(options.tracker, options.tracker_port, options.key, options.address, options.port);
  tracker = &pool;
  Clients clients;
  for (double tick = 0; !stopped;) {
    if (seconds() >= tick && !clients.busy()) pool.keep(), tick = seconds() + kTickSeconds;
    pollfd waits[1 + kMostGreetings];
    waits[0] = {listener, POLLIN, 0};
    const int greeting = clients.poll_for(waits + 1);
    poll(waits, static_cast<nfds_t>(1 + greeting), clients.busy() || greeting ? 20 : 250);
    if (waits[0].revents) clients.accept_from(listener);
    clients.go_on();
  }
  clients.stop();
  session::remove_folder();
  say("stopped");
  return 0;
}
