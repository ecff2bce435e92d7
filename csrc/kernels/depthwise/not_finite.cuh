// Infinities and NaN among the weights. Kernels multiply the weights of taps that lie outside of the source with zeros,
// and such a product is NaN. In fprop that is the definition: padding is zeros, and they are terms of the sum. In a
// gradient there is no such term.
#pragma once

#include "kernels/depthwise/chunk.cuh"
#include "kernels/depthwise/geometry.h"

namespace fastconv::depthwise {

// Where an output's tap lies along an axis; false where there is no such source place.
__device__ __forceinline__ bool find_source(const Axis& axis, bool transposed, int output, int tap, int& place) {
  if (transposed) {
    const int times_stride = output + axis.offset - tap * axis.dilation;
    uint32_t rest = max(times_stride, 0);
    place = axis.strides.split(rest);
    if (times_stride < 0 || rest != 0) return false;
  } else {
    place = output * axis.stride - axis.offset + tap * axis.dilation;
  }
  return static_cast<unsigned>(place) < static_cast<unsigned>(axis.source);
}

// Adds up what term(r, s, source row, source column) gives for the taps of an output that lie inside of the source.
template <class Term>
__device__ __forceinline__ float sum_of_terms(const Axis& rows, const Axis& columns, bool transposed, int row,
                                              int column, const Term& term) {
  float sum = 0;
#pragma unroll 1
  for (int r = 0; r < rows.taps; ++r) {
    int y;
    if (!find_source(rows, transposed, row, r, y)) continue;
#pragma unroll 1
    for (int s = 0; s < columns.taps; ++s) {
      int x;
      if (find_source(columns, transposed, column, s, x)) sum += term(r, s, y, x);
    }
  }
  return sum;
}

}  // namespace fastconv::depthwise
