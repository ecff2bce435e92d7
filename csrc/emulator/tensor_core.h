// What ldmatrix and mma mean: each lane deposits its registers, and the last one to arrive does the work of all.
#pragma once

#include <cstdint>

#include "emulator/scheduler.h"
#include "emulator/thread.h"

namespace fastconv::emulator {

inline int lane_of_warp() {
  return static_cast<int>(current_thread().rank % kWarpSize);
}

struct MatrixLane {
  uint32_t row[4];        // the 16 bytes at this lane's address
  uint32_t registers[4];  // result: one of each matrix
  int count;
  bool transposed;
};

void load_matrices(MatrixLane& lane, int count, bool transposed);

enum class MmaKind { float16, bfloat16, tf32 };

// A grid of rows x columns tiles of 16x8.
struct MmaLane {
  MmaKind kind;
  int rows, columns;
  float* d;           // [rows][columns][4]
  const uint32_t* a;  // [rows][4]
  const uint32_t* b;  // [columns][2]
};

void multiply_add(const MmaLane& lane);

}  // namespace fastconv::emulator
