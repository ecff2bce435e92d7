// What the depthwise kernels are told: one image plane is correlated with one filter. No device code.
//
// Every pass is a sum over taps of source places. fprop and dgrad of stride 1 read source row
// p * stride + r * dilation - offset for output row p, dgrad with its taps reversed. dgrad of a larger stride
// (`transposed`) reads source row (p + offset - r * dilation) / stride where that is whole.
#pragma once

#include <cstdint>

#include "common/fast_division.h"
#include "common/problem.h"

namespace fastconv::depthwise {

// One of the two spatial dimensions.
struct Axis {
  int source, output;  // sizes
  int taps, stride, dilation;
  int offset;                     // see above; may be negative
  FastDivider<uint32_t> strides;  // by the stride
};

// Places in tensors are 64 bits wide, distances inside a plane 32, so one kernel serves both index widths.
struct Plane {
  int64_t batch, channel;  // strides in elements
  int row, column;
};

// w: [K, 1, R, S]
struct Weights {
  int64_t filter;  // strides in elements
  int64_t row, column;
};

}  // namespace fastconv::depthwise
