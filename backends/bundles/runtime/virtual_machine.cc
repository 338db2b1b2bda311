// The model as TVM's virtual machine runs it, through the C interface of the runtime.
//
// With STATIC_MODEL the model's objects are linked into the program, and symbols.cc lists what they define; else it is
// the shared library model.so beside the program. Weights are read where they are: in the program, or in files that are
// mapped.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <unistd.h>

#include "calls.h"
#include "memory.h"
#include "model.h"
#include "regular.h"

#ifdef STATIC_MODEL
struct Symbol {
  const char* name;
  void* address;
};
extern const Symbol kSymbols[];
extern const int kSymbolCount;
#endif

namespace {

using namespace calls;

constexpr size_t kAlignment = 64;
constexpr int kCpuDevice = 1, kPooledAllocator = 2, kStrongestCoresFirst = 1;

TVMFFIObjectHandle main_function;
TVMFFIAny* arguments;
TVMFFIAny result;
TVMFFIAny* outputs;

int argument_count() { return kInputCount + kStateCount + kWeightCount + kSlotCount; }

size_t bytes_of(const Spec& spec) {
  size_t bytes = spec.item_bytes;
  for (int i = 0; i < spec.rank; ++i) bytes *= static_cast<size_t>(spec.shape[i]);
  return bytes;
}

void release(TVMFFIAny* value) {
  if (value->type_index >= kTVMFFIStaticObjectBegin) TVMFFIObjectDecRef(value->v_obj);
  *value = none();
}

const char* method(TVMFFIAny module, const char* name, TVMFFIAny* function) {
  TVMFFIAny values[] = {module, text(name), integer(0)};
  values[2].type_index = kTVMFFIBool;
  if (const char* error = call_global("ffi.ModuleGetFunction", values, 3, function)) return error;
  if (function->type_index == kTVMFFIFunction) return nullptr;
  snprintf(message, sizeof message, "the library has no function '%s'", name);
  return message;
}

const char* load_library(const char* folder, TVMFFIAny* library) {
#ifdef STATIC_MODEL
  (void)folder;
  for (int i = 0; i < kSymbolCount; ++i) {
    if (TVMFFIEnvModRegisterSystemLibSymbol(kSymbols[i].name, kSymbols[i].address)) return raised();
  }
  return call_global("ffi.SystemLib", nullptr, 0, library);
#else
  char path[4200];
  snprintf(path, sizeof path, "%s/model.so", folder);
  TVMFFIAny value = text(path);
  return call_global("ffi.ModuleLoadFromFile", &value, 1, library);
#endif
}

void keep(DLManagedTensor*) {}

// A tensor over memory that lives as long as the program.
const char* make_tensor(void* data, const char* dtype, int rank, const int64_t* shape, TVMFFIAny* value) {
  DLManagedTensor* tensor = static_cast<DLManagedTensor*>(calloc(1, sizeof(DLManagedTensor)));
  if (!tensor) return "out of memory";
  tensor->deleter = keep;
  tensor->dl_tensor.data = data;
  tensor->dl_tensor.device = {kDLCPU, 0};
  tensor->dl_tensor.ndim = rank;
  tensor->dl_tensor.shape = const_cast<int64_t*>(shape);
  const TVMFFIByteArray name = {dtype, strlen(dtype)};
  if (TVMFFIDataTypeFromString(&name, &tensor->dl_tensor.dtype)) return raised();
  TVMFFIObjectHandle object = nullptr;
  if (TVMFFITensorFromDLPack(tensor, 0, 1, &object)) return raised();
  *value = none();
  value->type_index = kTVMFFITensor;
  value->v_obj = static_cast<TVMFFIObject*>(object);
  return nullptr;
}

// A tensor in memory of its own.
const char* make_own(const Spec& spec, TVMFFIAny* value) {
  const size_t bytes = bytes_of(spec);
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, bytes ? bytes : kAlignment)) return "out of memory";
  return make_tensor(data, spec.dtype, spec.rank, spec.shape, value);
}

const char* map_file(const char* folder, const WeightFile& file, void** data) {
  char path[4200];
  snprintf(path, sizeof path, "%s/%s", folder, file.name);
  const int handle = regular::open_file(path);
  if (handle < 0) {
    snprintf(message, sizeof message, "cannot read '%s': %s", file.name, regular::reason());
    return message;
  }
  // Not fstat, which asks for a new C library.
  if (static_cast<size_t>(lseek(handle, 0, SEEK_END)) != file.bytes) {
    close(handle);
    snprintf(message, sizeof message, "'%s' has another size than it should; copy the bundle again", file.name);
    return message;
  }
  *data = mmap(nullptr, file.bytes, PROT_READ, MAP_PRIVATE, handle, 0);
  close(handle);
  return *data == MAP_FAILED ? "out of memory" : nullptr;
}

const char* make_pieces(const Piece* pieces, int count, unsigned char* const* blocks, TVMFFIAny* values) {
  for (int i = 0; i < count; ++i) {
    const Piece& piece = pieces[i];
    unsigned char* data = blocks[piece.file] + piece.offset;
    if (const char* error = make_tensor(data, piece.dtype, piece.rank, piece.shape, &values[i])) return error;
  }
  return nullptr;
}

// What the model's function takes after the inputs and the state: the weights, and the places of the values between kernels.
const char* make_memory(const char* folder, TVMFFIAny* values) {
  unsigned char** files = static_cast<unsigned char**>(calloc(static_cast<size_t>(kWeightFileCount) + 1, sizeof(void*)));
  if (!files) return "out of memory";
  for (int i = 0; i < kWeightFileCount; ++i) {
    void* data = const_cast<unsigned char*>(kWeightFiles[i].data);
    if (!data) {
      if (const char* error = map_file(folder, kWeightFiles[i], &data)) return error;
    }
    files[i] = static_cast<unsigned char*>(data);
  }
  if (const char* error = make_pieces(kWeights, kWeightCount, files, values)) return error;
  free(files);
  void* arena = nullptr;
  if (posix_memalign(&arena, kAlignment, kArenaBytes ? kArenaBytes : kAlignment)) return "out of memory";
  unsigned char* const block = static_cast<unsigned char*>(arena);
  return make_pieces(kSlots, kSlotCount, &block, values + kWeightCount);
}

}  // namespace

const char* model_load(const char* folder, int threads) {
  char count[16];
  snprintf(count, sizeof count, "%d", threads);
  // The most that the pool can have; read when it starts.
  setenv("TVM_NUM_THREADS", count, 1);
  TVMFFIAny library, load, machine, initialize, function, nothing;
  if (const char* error = load_library(folder, &library)) return error;
  if (const char* error = method(library, "vm_load_executable", &load)) return error;
  if (const char* error = call(load.v_obj, nullptr, 0, &machine)) return error;
  if (const char* error = method(machine, "vm_initialization", &initialize)) return error;
  TVMFFIAny device[] = {integer(kCpuDevice), integer(0), integer(kPooledAllocator)};
  if (const char* error = call(initialize.v_obj, device, 3, &nothing)) return error;
  if (const char* error = method(machine, "main", &function)) return error;
  main_function = function.v_obj;
  TVMFFIAny pool[] = {integer(kStrongestCoresFirst), integer(threads)};
  if (const char* error = call_global("runtime.config_threadpool", pool, 2, &nothing)) return error;
  arguments = static_cast<TVMFFIAny*>(calloc(static_cast<size_t>(argument_count()) + 1, sizeof(TVMFFIAny)));
  outputs = static_cast<TVMFFIAny*>(calloc(static_cast<size_t>(kOutputCount) + 1, sizeof(TVMFFIAny)));
  if (!arguments || !outputs) return "out of memory";
  for (int i = 0; i < kInputCount + kStateCount; ++i) {
    const Spec& spec = i < kInputCount ? kInputs[i] : kStates[i - kInputCount];
    if (const char* error = make_own(spec, &arguments[i])) return error;
  }
  model_reset();
  return make_memory(folder, arguments + kInputCount + kStateCount);
}

void* model_input(int index) { return TVMFFITensorGetDLTensorPtr(arguments[index].v_obj)->data; }

void model_reset() {
  for (int i = 0; i < kStateCount; ++i) {
    void* data = TVMFFITensorGetDLTensorPtr(arguments[kInputCount + i].v_obj)->data;
    if (kStateInitials[i]) {
      memcpy(data, kStateInitials[i], bytes_of(kStates[i]));
    } else {
      memset(data, 0, bytes_of(kStates[i]));
    }
  }
}

const char* model_run() {
  for (int i = 0; i < kOutputCount; ++i) release(&outputs[i]);
  release(&result);
  if (const char* error = call(main_function, arguments, argument_count(), &result)) return error;
  if (result.type_index == kTVMFFITensor) {
    if (TVMFFIAnyViewToOwnedAny(&result, &outputs[0])) return raised();
    return nullptr;
  }
  for (int i = 0; i < kOutputCount; ++i) {
    TVMFFIAny values[] = {result, integer(i)};
    if (const char* error = call_global("ffi.ArrayGetItem", values, 2, &outputs[i])) return error;
  }
  return nullptr;
}

const void* model_output(int index) {
  const DLTensor* tensor = TVMFFITensorGetDLTensorPtr(outputs[index].v_obj);
  return static_cast<const char*>(tensor->data) + tensor->byte_offset;
}
