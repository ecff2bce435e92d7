// Sixteen bytes of a tensor as float32 sums see them.
#pragma once

#include <cmath>

#include "common/numeric.h"
#include "ptx/device.h"

namespace fastconv::depthwise {

constexpr int kChunkBytes = 16;

template <typename T>
constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));  // elements

// Kernels that multiply with zeros of their own have to look: an infinity or NaN makes NaN of them.
__device__ __forceinline__ bool is_finite(float value) {
  return fabsf(value) < INFINITY;
}

template <typename T>
__device__ __forceinline__ void load_chunk(const T* source, float (&values)[kChunk<T>]) {
  const auto chunk = ptx::load_vector<kChunk<T>>(source);
#pragma unroll
  for (int i = 0; i < kChunk<T>; ++i) values[i] = Numeric<T>::load(chunk[i]);
}

template <typename T>
__device__ __forceinline__ void store_chunk(T* destination, const float (&values)[kChunk<T>]) {
  ptx::Vector<T, kChunk<T>> chunk;
#pragma unroll
  for (int i = 0; i < kChunk<T>; ++i) chunk[i] = Numeric<T>::store(values[i]);
  ptx::store_vector(destination, chunk);
}

}  // namespace fastconv::depthwise
