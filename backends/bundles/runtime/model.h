// What the program `run` needs of a model, however it is executed. signature.cc, made for each model, defines the
// constants; virtual_machine.cc or standalone.cc defines the functions.
//
// Nothing here or in run.cc needs the C++ standard library, so the program runs on machines whose own is old.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct Spec {
  const char* name;
  const char* dtype;   // as NumPy names it
  const char* descr;   // as a .npy file spells it
  size_t item_bytes;
  int rank;
  const int64_t* shape;
};

extern const Spec kInputs[], kOutputs[], kStates[];
extern const int kInputCount, kOutputCount, kStateCount;
// What each buffer of the state holds before the first call; nullptr for zeros.
extern const unsigned char* const kStateInitials[];
extern const char kTarget[], kCpu[];
extern const int kThreads;

// Makes the model ready to run with so many threads. `folder` is where the program lies.
// Returns nullptr, or what went wrong.
const char* model_load(const char* folder, int threads);
// Where input `index` is to be written before a run.
void* model_input(int index);
// Returns nullptr, or what went wrong. What the model keeps for the next run is kept.
const char* model_run();
// Makes what the model keeps what it was before the first run.
void model_reset();
// Output `index` of the last run, until the next one.
const void* model_output(int index);
