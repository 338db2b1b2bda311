// The model as C sources run it, without any runtime.
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

int reconvene_run_arrays(void* const* inputs, void* const* outputs);
void reconvene_reset_arrays();

namespace {

constexpr size_t kAlignment = 64;
void** inputs;
void** outputs;
char message[64];

// Memory for each of `specs`, or nullptr if there is none.
void** arrays(const Spec* specs, int count) {
  void** all = static_cast<void**>(calloc(static_cast<size_t>(count) + 1, sizeof(void*)));
  for (int i = 0; all && i < count; ++i) {
    size_t bytes = specs[i].item_bytes;
    for (int j = 0; j < specs[i].rank; ++j) bytes *= static_cast<size_t>(specs[i].shape[j]);
    if (posix_memalign(&all[i], kAlignment, bytes ? bytes : kAlignment)) return nullptr;
  }
  return all;
}

}  // namespace

const char* model_load(const char*, int threads) {
  if (threads != 1) return "without a runtime there is one thread; use --threads 1";
  inputs = arrays(kInputs, kInputCount);
  outputs = arrays(kOutputs, kOutputCount);
  return inputs && outputs ? nullptr : "out of memory";
}

void* model_input(int index) { return inputs[index]; }

const char* model_run() {
  const int code = reconvene_run_arrays(inputs, outputs);
  if (!code) return nullptr;
  snprintf(message, sizeof message, "reconvene_run returned %d", code);
  return message;
}

void model_reset() { reconvene_reset_arrays(); }

const void* model_output(int index) { return outputs[index]; }
