// The zeros among which max_unpool.cuh puts its values.
#pragma once

#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "ptx/device.h"
#include "ptx/vector.h"

namespace fastconv {

__device__ inline int64_t at_flat(const Strides<int64_t>& strides, const FastDivider<uint32_t>& columns, int flat) {
  uint32_t column = static_cast<uint32_t>(flat);
  const uint32_t row = columns.split(column);
  return row * strides.row + column * strides.column;
}

// Zeros at `count` neighbouring elements, by the lanes of a warp.
template <typename T>
__device__ __forceinline__ void clear_piece(T* first, int count, int lane) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(first) / sizeof(T) % kElements);
  ptx::Vector<T, kElements> zeros;
#pragma unroll
  for (int e = 0; e < kElements; ++e) zeros[e] = Numeric<T>::store(0);
  for (int begin = lane * kElements - lead; begin < count; begin += 32 * kElements) {
    if (begin >= 0 && begin + kElements <= count) {
      ptx::store_vector(first + begin, zeros);
    } else {
      for (int i = max(0, begin); i < min(count, begin + kElements); ++i) first[i] = zeros[0];
    }
  }
}

// From `begin` to before `end`.
struct UnpoolRange {
  int begin, end;
};

// Zeros at a range of positions of up to 32 channels, from channels.begin, by the lanes of a warp. has_vectors: all
// channels lie in whole accesses of them.
template <typename T>
__device__ __forceinline__ void clear_channels(const Strides<int64_t>& strides, const FastDivider<uint32_t>& columns,
                                               T* image, UnpoolRange channels, UnpoolRange positions, bool has_vectors,
                                               int lane) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T)), kVectors = 32 / kElements;
  if (has_vectors) {
    ptx::Vector<T, kElements> zeros;
#pragma unroll
    for (int e = 0; e < kElements; ++e) zeros[e] = Numeric<T>::store(0);
    const int first = channels.begin + lane % kVectors * kElements;
    for (int i = positions.begin + lane / kVectors; i < positions.end; i += kElements) {
      if (first < channels.end) ptx::store_vector(image + first + at_flat(strides, columns, i), zeros);
    }
  } else if (channels.begin + lane < channels.end) {
    for (int i = positions.begin; i < positions.end; ++i) {
      image[(channels.begin + lane) * strides.channel + at_flat(strides, columns, i)] = Numeric<T>::store(0);
    }
  }
}

}  // namespace fastconv
