// The program `run` of a bundle: arrays in, arrays out, on a machine without Python. See usage() for what it does.
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model.h"
#include "regular.h"
#include "switching.h"

namespace {

constexpr int kBadInput = 2, kFault = 1, kMostPath = 4096, kMostHeader = 65536;
constexpr int kMostRuns = 1000000, kMostThreads = 1024;

// Ends the program without taking TVM's pool of threads apart, which takes most of a second for each.
[[noreturn]] void leave(int code) { _exit(fflush(stdout) == 0 ? code : kBadInput); }

[[noreturn]] void fail(int code, const char* format, ...) {
  va_list values;
  va_start(values, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  va_end(values);
  leave(code);
}

struct Text {
  char characters[256];
};

// "float32 1x3x32x32"
Text described(const char* dtype, int rank, const int64_t* shape) {
  Text text;
  int at = snprintf(text.characters, sizeof text.characters, "%s %s", dtype, rank ? "" : "scalar");
  for (int i = 0; i < rank && at < static_cast<int>(sizeof text.characters); ++i) {
    at += snprintf(text.characters + at, sizeof text.characters - at, i ? "x%lld" : "%lld",
                   static_cast<long long>(shape[i]));
  }
  return text;
}

Text described(const Spec& spec) { return described(spec.dtype, spec.rank, spec.shape); }

size_t elements(const Spec& spec) {
  size_t count = 1;
  for (int i = 0; i < spec.rank; ++i) count *= static_cast<size_t>(spec.shape[i]);
  return count;
}

size_t bytes(const Spec& spec) { return elements(spec) * spec.item_bytes; }

// ---- .npy: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

// What follows `key` in the header's text, a Python dictionary.
const char* value_of(const char* header, const char* key) {
  const char* found = strstr(header, key);
  if (!found) return nullptr;
  found = strchr(found, ':');
  if (!found) return nullptr;
  for (++found; *found == ' '; ++found) {
  }
  return found;
}

// The header's text from after the magic number, or nullptr if this is no .npy file. The caller frees it.
char* read_header(FILE* file) {
  unsigned char start[10], more[2] = {0, 0};
  if (fread(start, 1, sizeof start, file) != sizeof start || memcmp(start, "\x93NUMPY", 6) != 0) return nullptr;
  if (start[6] < 1 || start[6] > 3) return nullptr;
  if (start[6] > 1 && fread(more, 1, sizeof more, file) != sizeof more) return nullptr;
  const size_t length = start[8] | start[9] << 8 | static_cast<size_t>(more[0]) << 16 | static_cast<size_t>(more[1]) << 24;
  if (length > kMostHeader) return nullptr;
  char* header = static_cast<char*>(calloc(length + 1, 1));
  if (header && fread(header, 1, length, file) == length) return header;
  free(header);
  return nullptr;
}

// Reads one array for input `index`, and refuses any that is not what the model takes.
void read_array(FILE* file, const char* name, int index) {
  const Spec& spec = kInputs[index];
  char* header = read_header(file);
  if (!header) fail(kBadInput, "'%s' is not a .npy file; write it with numpy.save", name);
  const char *descr = value_of(header, "'descr'"), *order = value_of(header, "'fortran_order'"),
             *shape = value_of(header, "'shape'");
  if (!descr || !order || !shape || *shape != '(') fail(kBadInput, "'%s' has a damaged .npy header", name);
  char kind[16] = "";
  sscanf(descr, "'%15[^']'", kind);
  int64_t sizes[16];
  int rank = 0;
  for (const char* at = shape + 1; *at && *at != ')' && rank < 16;) {
    char* end;
    sizes[rank] = strtoll(at, &end, 10);
    if (end == at) break;
    ++rank;
    for (at = end; *at == ',' || *at == ' '; ++at) {
    }
  }
  bool same = rank == spec.rank && !strcmp(kind, spec.descr);
  for (int i = 0; same && i < rank; ++i) same = sizes[i] == spec.shape[i];
  if (!same) {
    const char* dtype = !strcmp(kind, spec.descr) ? spec.dtype : kind;
    fail(kBadInput, "input '%s' must be %s, but '%s' is %s", spec.name, described(spec).characters, name,
         described(dtype, rank, sizes).characters);
  }
  // A single row, or column, has both orders.
  if (!strncmp(order, "True", 4) && spec.rank > 1) {
    fail(kBadInput, "'%s' is in Fortran order; save numpy.ascontiguousarray(array)", name);
  }
  free(header);
  if (fread(model_input(index), 1, bytes(spec), file) != bytes(spec)) fail(kBadInput, "'%s' ends too early", name);
}

bool write_array(FILE* file, int index) {
  const Spec& spec = kOutputs[index];
  char header[512];
  int at = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (", spec.descr);
  for (int i = 0; i < spec.rank; ++i) {
    at += snprintf(header + at, sizeof header - at, "%lld,", static_cast<long long>(spec.shape[i]));
  }
  at += snprintf(header + at, sizeof header - at, "), }");
  // The data begins at a multiple of 64 bytes, after a line break.
  const int length = (10 + at + 1 + 63) / 64 * 64 - 10;
  memset(header + at, ' ', length - at);
  header[length - 1] = '\n';
  const unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<unsigned char>(length & 255),
                                   static_cast<unsigned char>(length >> 8)};
  return fwrite(start, 1, sizeof start, file) == sizeof start &&
         fwrite(header, 1, length, file) == static_cast<size_t>(length) &&
         fwrite(model_output(index), 1, bytes(spec), file) == bytes(spec) && fflush(file) == 0;
}

// What the model takes and gives, a line each. Names do not matter.
void describe(char* text, size_t size) {
  size_t at = 0;
  for (int i = 0; i < kInputCount + kOutputCount && at < size; ++i) {
    const bool input = i < kInputCount;
    const Spec& spec = input ? kInputs[i] : kOutputs[i - kInputCount];
    at += static_cast<size_t>(
        snprintf(text + at, size - at, "%s %s\n", input ? "input" : "output", described(spec).characters));
  }
}

// ---- what the program can be asked for

struct Options {
  const char* output = ".";
  int bench = 0;
  int warmup = 5;
  int threads = kThreads;
  bool json = false;
  bool serve = false;
  bool signature = false;
  const char* switched = nullptr;
  const char* launcher = nullptr;
  char** files = nullptr;
  int file_count = 0;
};

void usage() {
  printf(
      "usage: run [-o FOLDER] INPUT.npy ...      runs the model; writes FOLDER/output0.npy and so on. Of several sets of\n"
      "                                          inputs, each is run in turn: FOLDER/0.output0.npy, 1.output0.npy\n"
      "       run --bench N [--json] [INPUT.npy ...]   times N runs, on random inputs unless some are given\n"
      "       run --serve                        for each set of arrays on stdin, in .npy form one after the other,\n"
      "                                          writes the outputs to stdout in the same form; a line\n"
      "                                          'switch NAME' between two sets goes over to another variant of\n"
      "                                          the portfolio, and is answered by a line; a line 'reset' makes what\n"
      "                                          the model keeps what it was at first, and is not answered\n"
      "       run --signature                    runs the model once; writes what it takes and gives\n"
      "options: --threads N (%d)   --warmup N (5)   -o, --output FOLDER (.)   -h, --help\n"
      "         --launcher WORDS                 what starts a program of this target on this machine\n"
      "compiled for %s (%s)\n",
      kThreads, kTarget, kCpu);
  for (int i = 0; i < kInputCount; ++i) printf("input %d: %s, %s\n", i, kInputs[i].name, described(kInputs[i]).characters);
  for (int i = 0; i < kOutputCount; ++i) printf("output %d: %s\n", i, described(kOutputs[i]).characters);
  for (int i = 0; i < kStateCount; ++i) printf("kept: %s, %s\n", kStates[i].name, described(kStates[i]).characters);
}

int number(const char* option, const char* text, int least, int most) {
  char* end = nullptr;
  const long value = text ? strtol(text, &end, 10) : 0;
  if (!text || end == text || *end || value < least || value > most) {
    fail(kBadInput, "%s takes a number from %d to %d, got '%s'", option, least, most, text ? text : "");
  }
  return static_cast<int>(value);
}

Options parsed(int count, char** words) {
  Options options;
  options.files = words;
  for (int i = 1; i < count; ++i) {
    const char* word = words[i];
    const char* next = i + 1 < count ? words[i + 1] : nullptr;
    if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
      usage();
      exit(0);
    } else if (!strcmp(word, "--bench")) {
      options.bench = number(word, next, 1, kMostRuns), ++i;
    } else if (!strcmp(word, "--warmup")) {
      options.warmup = number(word, next, 0, kMostRuns), ++i;
    } else if (!strcmp(word, "--threads")) {
      options.threads = number(word, next, 1, kMostThreads), ++i;
    } else if (!strcmp(word, "-o") || !strcmp(word, "--output")) {
      if (!next) fail(kBadInput, "%s takes a folder", word);
      options.output = next, ++i;
    } else if (!strcmp(word, "--json")) {
      options.json = true;
    } else if (!strcmp(word, "--serve")) {
      options.serve = true;
    } else if (!strcmp(word, "--signature")) {
      options.signature = true;
    } else if (!strcmp(word, "--switched") || !strcmp(word, "--launcher")) {
      if (!next) fail(kBadInput, "%s takes a value", word);
      (word[2] == 's' ? options.switched : options.launcher) = next, ++i;
    } else if (word[0] == '-') {
      fail(kBadInput, "unknown option '%s'; see run --help", word);
    } else {
      words[options.file_count++] = words[i];
    }
  }
  const bool wanted = !options.serve && !options.signature && !(options.bench && !options.file_count);
  if (options.serve && options.file_count) fail(kBadInput, "--serve reads its inputs from stdin, not from files");
  const int sets = kInputCount ? options.file_count / kInputCount : 0;
  const int most = options.bench || options.signature ? 1 : options.file_count;
  if ((wanted && sets * kInputCount != options.file_count) || (wanted && kInputCount && (sets < 1 || sets > most))) {
    fail(kBadInput, "the model takes %d inputs, got %d files; see run --help", kInputCount, options.file_count);
  }
  return options;
}

void run_model() {
  if (const char* error = model_run()) fail(kFault, "the model failed: %s", error);
}

// Reads one set of inputs from as many files.
void read_files(char** names) {
  for (int i = 0; i < kInputCount; ++i) {
    const int handle = regular::open_file(names[i]);
    FILE* file = handle < 0 ? nullptr : fdopen(handle, "rb");
    if (!file) fail(kBadInput, "cannot read '%s': %s", names[i], regular::reason());
    read_array(file, names[i], i);
    if (fgetc(file) != EOF) fail(kBadInput, "'%s' holds more than one array", names[i]);
    fclose(file);
  }
}

// Floats from -1 to 1, the same on every machine; zeros for what counts or indexes.
void fill_inputs() {
  uint32_t state = 1;
  for (int i = 0; i < kInputCount; ++i) {
    memset(model_input(i), 0, bytes(kInputs[i]));
    if (strcmp(kInputs[i].dtype, "float32") != 0) continue;
    float* values = static_cast<float*>(model_input(i));
    for (size_t j = 0; j < elements(kInputs[i]); ++j) {
      state = state * 1664525u + 1013904223u;
      values[j] = static_cast<float>(static_cast<int32_t>(state) >> 8) / 8388608.0f;
    }
  }
}

// `prefix` is what the files' names begin with.
void write_files(const char* folder, const char* prefix) {
  for (int i = 0; i < kOutputCount; ++i) {
    char path[kMostPath], part[kMostPath + 8];
    snprintf(path, sizeof path, "%s/%soutput%d.npy", folder, prefix, i);
    snprintf(part, sizeof part, "%s.part", path);
    FILE* file = fopen(part, "wb");
    if (!file) fail(kBadInput, "cannot write '%s': %s", path, strerror(errno));
    bool good = write_array(file, i);
    int reason = errno;
    if (fclose(file) != 0 && good) good = false, reason = errno;
    if (good && rename(part, path) != 0) good = false, reason = errno;
    if (!good) {
      remove(part);
      fail(kBadInput, "cannot write '%s': %s", path, strerror(reason));
    }
    printf("%s: %s\n", path, described(kOutputs[i]).characters);
  }
}

// Runs the model on every set of files in turn.
void run_files(const Options& options) {
  const int sets = kInputCount ? options.file_count / kInputCount : 1;
  for (int i = 0; i < sets; ++i) {
    char prefix[16] = "";
    if (sets > 1) snprintf(prefix, sizeof prefix, "%d.", i);
    read_files(options.files + i * kInputCount);
    run_model();
    write_files(options.output, prefix);
  }
}

double milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

int ascending(const void* left, const void* right) {
  const double a = *static_cast<const double*>(left), b = *static_cast<const double*>(right);
  return (a > b) - (a < b);
}

// Between neighbours as NumPy's percentile: linear.
double quantile(const double* sorted, int count, double share) {
  const double place = share * (count - 1);
  const int below = static_cast<int>(place), above = below + 1 < count ? below + 1 : below;
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

void bench(const Options& options) {
  for (int i = 0; i < options.warmup; ++i) run_model();
  double* times = static_cast<double*>(malloc(sizeof(double) * static_cast<size_t>(options.bench)));
  if (!times) fail(kFault, "out of memory");
  for (int i = 0; i < options.bench; ++i) {
    const double start = milliseconds();
    run_model();
    times[i] = milliseconds() - start;
  }
  qsort(times, static_cast<size_t>(options.bench), sizeof(double), ascending);
  const int n = options.bench;
  const double median = quantile(times, n, 0.5), low = quantile(times, n, 0.1), high = quantile(times, n, 0.9);
  const long long batch = kInputCount && kInputs[0].rank ? static_cast<long long>(kInputs[0].shape[0]) : 1;
  printf(options.json ? "{\"median_ms\": %.6f, \"p10_ms\": %.6f, \"p90_ms\": %.6f, \"minimum_ms\": %.6f, "
                        "\"repeats\": %d, \"threads\": %d, \"batch\": %lld}\n"
                      : "median %.3f ms, p10 %.3f, p90 %.3f, minimum %.3f (%d runs, %d threads, batch %lld)\n",
         median, low, high, times[0], n, options.threads, batch);
  free(times);
}

// Answers a line of stdin that is no array.
void obey(Switching* switching) {
  char line[256];
  if (!fgets(line, sizeof line, stdin)) return;
  const size_t length = strcspn(line, "\n");
  if (!line[length]) fail(kBadInput, "'%.60s' is neither an array nor a command of one line", line);
  line[length] = 0;
  if (!strcmp(line, "reset")) {
    model_reset();
    return;
  }
  const char* error = nullptr;
  char kept[512];
  if (strncmp(line, "switch ", 7)) {
    error = "the only commands are 'reset' and 'switch NAME'";
  } else if (kStateCount) {
    snprintf(kept, sizeof kept, "the model keeps '%.400s' between requests, which another variant does not know",
             kStates[0].name);
    error = kept;
  } else {
    error = switching->become(line + 7);
  }
  printf("error: %s\n", error);
  if (fflush(stdout)) fail(kBadInput, "cannot write to stdout: %s", strerror(errno));
}

void serve(const Options& options, const char* folder) {
  char signature[4096] = "";
  describe(signature, sizeof signature);
  Switching switching(folder, options.launcher, signature, options.threads);
  // What was read ahead would be lost to the program that this one becomes.
  setvbuf(stdin, nullptr, _IONBF, 0);
  if (options.switched) {
    fill_inputs();
    run_model();
    printf("switched %s\n", options.switched);
    if (fflush(stdout)) fail(kBadInput, "cannot write to stdout: %s", strerror(errno));
  }
  for (;;) {
    const int first = fgetc(stdin);
    if (first == EOF) return;
    ungetc(first, stdin);
    if (isalpha(first)) {
      obey(&switching);
      continue;
    }
    for (int i = 0; i < kInputCount; ++i) read_array(stdin, "stdin", i);
    run_model();
    for (int i = 0; i < kOutputCount; ++i) {
      if (!write_array(stdout, i)) fail(kBadInput, "cannot write to stdout: %s", strerror(errno));
    }
  }
}

void on_illegal_instruction(int) {
  const char* parts[] = {"error: this processor lacks an instruction of the model: it was compiled for ", kCpu,
                         "; compile it for this machine (reconvene targets)\n"};
  for (const char* part : parts) {
    if (write(2, part, strlen(part)) < 0) break;
  }
  _exit(kBadInput);
}

}  // namespace

int main(int count, char** words) {
  signal(SIGILL, on_illegal_instruction);
  signal(SIGPIPE, SIG_IGN);
  const Options options = parsed(count, words);
  char folder[kMostPath];
  const ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
  if (length < 0) fail(kFault, "cannot find the program's own folder: %s", strerror(errno));
  folder[length] = 0;
  *strrchr(folder, '/') = 0;
  if (const char* error = model_load(folder, options.threads)) fail(kFault, "cannot load the model: %s", error);
  if (options.serve) {
    serve(options, folder);
    leave(0);
  }
  if (options.bench || options.signature) options.file_count ? read_files(options.files) : fill_inputs();
  if (options.bench) {
    bench(options);
  } else if (options.signature) {
    char signature[4096] = "";
    describe(signature, sizeof signature);
    run_model();
    printf("%s", signature);
  } else {
    run_files(options);
  }
  leave(0);
}
