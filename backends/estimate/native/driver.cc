// Calls one of TVM's kernels as often as is asked, without TVM's runtime.
//
//     driver count|time PASSES CODE:BITS:EXTENT,EXTENT,...[@FILE] ...
//
// takes one argument for each of the kernel's tensors, with a file for what is in it where that matters. Its entry is linked under the name kernel_entry. With "time", the
// nanoseconds of each pass go to stdout; "count" does nothing in a pass but call the kernel.
#include <sys/mman.h>

#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <tvm/ffi/c_api.h>

extern "C" {

int kernel_entry(void* self, TVMFFIAny* arguments, int count, TVMFFIAny* result);

typedef int (*Task)(int task, void* environment, void* data);

// Kernels ask for the same few sizes again and again and return the last block first, so memory is a stack here.
static char* workspace;
static uint64_t workspace_used;
static const uint64_t kWorkspaceBytes = UINT64_C(1) << 28;

static void* allocate(int, int, uint64_t bytes, int, int) {
  const uint64_t room = (bytes + 127) / 64 * 64;
  if (!workspace || workspace_used + room > kWorkspaceBytes) return nullptr;
  workspace_used += room;
  return workspace + workspace_used - room;
}

static int release(int, int, void* memory) {
  workspace_used = static_cast<uint64_t>(static_cast<char*>(memory) - workspace);
  return 0;
}

static int launch(Task task, void* data, int) {
  struct {
    void* handle;
    int32_t tasks;
  } environment = {nullptr, 1};
  return task(0, &environment, data);
}

// What kernels call in TVM's runtime: they hold these pointers as weak symbols.
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;
int (*__TVMBackendParallelLaunch)(Task, void*, int) = launch;

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; i++) fputs(parts[i], stderr);
  fputc('\n', stderr);
}

}  // extern "C"

// A tensor of the kind `text` describes. Without a file, floats are small and differ, and integers are 0, which is a valid
// index anywhere.
static bool make(const char* text, DLTensor* tensor, std::vector<int64_t>* shape) {
  int code, bits, used = 0;
  if (sscanf(text, "%d:%d:%n", &code, &bits, &used) != 2 || !used) return false;
  int64_t elements = 1;
  const char* rest = text + used;
  for (; *rest && *rest != '@'; rest += *rest == ',') {
    char* end;
    shape->push_back(strtoll(rest, &end, 10));
    if (end == rest) return false;
    elements *= shape->back();
    rest = end;
  }
  const size_t bytes = static_cast<size_t>(elements) * ((bits + 7) / 8);
  void* data = nullptr;
  if (posix_memalign(&data, 64, bytes + 64)) return false;
  memset(data, 0, bytes + 64);
  if (code == kDLFloat && bits == 32)
    for (int64_t i = 0; i < elements; i++) static_cast<float*>(data)[i] = static_cast<float>(i * 7919 % 2003 - 1001) * 1e-3f;
  if (*rest == '@') {
    FILE* file = fopen(rest + 1, "rb");
    const bool whole = file && fread(data, 1, bytes, file) == bytes;
    if (file) fclose(file);
    if (!whole) return false;
  }
  *tensor = DLTensor{};
  tensor->data = data;
  tensor->device = {kDLCPU, 0};
  tensor->ndim = static_cast<int32_t>(shape->size());
  tensor->dtype = {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1};
  tensor->shape = shape->data();
  return true;
}

int main(int argc, char** argv) {
  const int passes = argc > 2 ? atoi(argv[2]) : 0, count = argc - 3;
  if (passes < 1 || count < 1) {
    fputs("usage: driver count|time PASSES CODE:BITS:EXTENT,EXTENT,... ...\n", stderr);
    return 2;
  }
  const bool timed = !strcmp(argv[1], "time");
  std::vector<DLTensor> tensors(count);
  std::vector<std::vector<int64_t>> shapes(count);
  std::vector<TVMFFIAny> arguments(count);
  for (int i = 0; i < count; i++) {
    if (!make(argv[i + 3], &tensors[i], &shapes[i])) {
      fprintf(stderr, "cannot make a tensor '%s'\n", argv[i + 3]);
      return 2;
    }
    arguments[i] = TVMFFIAny{};
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &tensors[i];
  }
  // Reserved, and given by the system page by page as it is used.
  workspace = static_cast<char*>(mmap(nullptr, kWorkspaceBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (workspace == MAP_FAILED) {
    perror("workspace");
    return 4;
  }
  std::vector<int64_t> times;
  for (int pass = 0; pass < passes; pass++) {
    TVMFFIAny result = {};
    if (!timed) {
      if (kernel_entry(nullptr, arguments.data(), count, &result)) return 3;
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    if (kernel_entry(nullptr, arguments.data(), count, &result)) return 3;
    const auto end = std::chrono::steady_clock::now();
    times.push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count());
  }
  for (int64_t time : times) printf("%" PRId64 "\n", time);
  return 0;
}
