// Sums of wgrad to which an infinity or NaN has come, once more by the definition: the fast kernels fill up what they
// multiply with zeros, and a zero beside dy times an infinity in x is none of the definition's terms. Padding is a
// term, a zero, as in a padded copy.
#pragma once

#include "kernels/depthwise/chunk.cuh"
#include "kernels/depthwise/geometry.h"

namespace fastconv::depthwise {

// One channel of one image: [H, W] of x or [P, Q] of dy.
template <typename T>
struct ChannelPlane {
  const T* place;
  int64_t row, column;  // strides in elements

  __device__ __forceinline__ float at(int y, int x) const { return Numeric<T>::load(place[y * row + x * column]); }
};

// What dy's rows [first_row, end_row) and columns [first_column, end_column) add to tap (r, s).
template <typename T>
__device__ float exact_tap(const ChannelPlane<T>& x, const ChannelPlane<T>& dy, const Axis& rows, const Axis& columns,
                           int first_row, int end_row, int first_column, int end_column, int r, int s) {
  float sum = 0;
#pragma unroll 1
  for (int p = first_row; p < end_row; ++p) {
    const int h = p * rows.stride + r * rows.dilation - rows.offset;
#pragma unroll 1
    for (int q = first_column; q < end_column; ++q) {
      const int w = q * columns.stride + s * columns.dilation - columns.offset;
      const bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(rows.source) &&
                          static_cast<unsigned>(w) < static_cast<unsigned>(columns.source);
      sum += dy.at(p, q) * (inside ? x.at(h, w) : 0.0f);
    }
  }
  return sum;
}

}  // namespace fastconv::depthwise
