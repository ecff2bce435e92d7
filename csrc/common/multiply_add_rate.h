// How fast devices multiply and add outside of tensor cores, from NVIDIA's data sheets; between generations the older
// one's figures stand.
#pragma once

#include "common/problem.h"

namespace fastconv {

// Of one multiprocessor, for sums of `dtype`'s accumulator.
inline double multiply_adds_per_clock(DataType dtype, int capability) {
  const bool is_data_center = capability == 80 || capability == 90 || capability == 100;
  if (dtype == DataType::float64) return is_data_center ? (capability == 80 ? 32 : 64) : 2;
  return capability <= 80 ? 64 : 128;
}

}  // namespace fastconv
