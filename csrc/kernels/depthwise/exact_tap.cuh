// Sums of wgrad to which an infinity or NaN may have come, once more by the definition. The fast kernels fill up what
// they multiply with zeros, and a zero beside dy times an infinity in x is none of the definition's terms. Padding is a
// term, a zero, as in a padded copy: those that pass over it leave out the NaN that an infinity in dy makes there.
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

// What dy's rows [first_row, end_row) and columns [first_column, end_column) add to tap (r, s): of these elements, what
// every lanes-th adds from the lane-th on.
template <typename T>
__device__ float exact_tap(const ChannelPlane<T>& x, const ChannelPlane<T>& dy, const Axis& rows, const Axis& columns,
                           int first_row, int end_row, int first_column, int end_column, int r, int s, int lane = 0,
                           int lanes = 1) {
  const int width = end_column - first_column, count = (end_row - first_row) * width;
  float sum = 0;
#pragma unroll 1
  for (int i = lane; i < count; i += lanes) {
    const int p = first_row + i / width, q = first_column + i % width;
    const int h = p * rows.stride + r * rows.dilation - rows.offset;
    const int w = q * columns.stride + s * columns.dilation - columns.offset;
    const bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(rows.source) &&
                        static_cast<unsigned>(w) < static_cast<unsigned>(columns.source);
    sum += dy.at(p, q) * (inside ? x.at(h, w) : 0.0f);
  }
  return sum;
}

}  // namespace fastconv::depthwise
