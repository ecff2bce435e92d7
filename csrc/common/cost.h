// A coarse prediction of a kernel's time, to order candidates before anything is measured. Never shown as a
// measurement.
#pragma once

#include <cstdint>

#include "common/problem.h"

namespace fastconv {

// What one launch asks of the device.
struct Work {
  double multiply_adds = 0;  // executed, the padding of tiles included
  double efficiency = 1;     // share of the instructions that are multiply-adds
  double bytes = 0;          // that cross device memory
  double exposed = 0;        // share of the shorter one of computing and moving that the longer does not hide
  double blocks = 1;
};

// Of kernels whose warps wait for what they asked for before they compute, and have nothing else under way: other warps
// hide most of it.
constexpr double kExposedWithoutStages = 0.3;

// Seconds for multiply-adds of `dtype`'s accumulator outside tensor cores.
double predict_seconds(const Work& work, DataType dtype, const Target& target);

}  // namespace fastconv
