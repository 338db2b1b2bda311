// Where a model's weights and the values between its kernels lie. places.cc, made for each model, defines these.
#pragma once
#include <stddef.h>
#include <stdint.h>

// A tensor in one of the weight files, or in the arena.
struct Piece {
  int file;
  size_t offset;
  const char* dtype;  // as NumPy names it
  int rank;
  const int64_t* shape;
};

// A file beside the program, or with `data` a part of the program.
struct WeightFile {
  const char* name;
  size_t bytes;
  const unsigned char* data;
};

extern const WeightFile kWeightFiles[];
extern const Piece kWeights[], kSlots[];
extern const int kWeightFileCount, kWeightCount, kSlotCount;
extern const size_t kArenaBytes;
