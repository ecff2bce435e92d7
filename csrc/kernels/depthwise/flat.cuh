// Rows of planes with W innermost, as one piece of memory. Rows need not begin at multiples of 16 bytes, but planes and
// their rows follow each other without gaps, so a warp moves the piece in whole aligned chunks of 16 bytes, and only
// what sticks out of the tensor, or of what the warp may write, element by element.
#pragma once

#include "common/activation.h"
#include "kernels/depthwise/chunk.cuh"
#include "kernels/depthwise/geometry.h"
#include "ptx/cp_async.h"
#include "ptx/device.h"
#include "ptx/global_store.h"
#include "ptx/pairs.h"

namespace fastconv::depthwise {

constexpr int kWarp = 32;
constexpr int kPlaneWarps = 4;  // of a block; each works alone
constexpr int kPlaneThreads = kPlaneWarps * kWarp;

// Elements between the aligned address below `address` and it.
template <typename T>
__device__ __forceinline__ int misalignment(const T* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) % kChunkBytes / sizeof(T));
}

// Starts copies of `count` elements at `begin` to shared memory; element i lands at staged[misalignment(begin) + i].
// Whole chunks are read, up to the ends of the tensor, which is [tensor, tensor_end) and has zeros behind it.
template <typename T>
__device__ __forceinline__ void stage_flat(T* staged, const T* begin, int count, const T* tensor, const T* tensor_end) {
  constexpr int kElements = kChunk<T>;
  const int lead = misalignment(begin), end = lead + count;
  const T* aligned = begin - lead;
  // Chunks that begin here, and no later than there, are whole.
  const int first_whole = aligned < tensor ? kElements : 0;
  const int last_whole =
      static_cast<int>(min(static_cast<int64_t>(tensor_end - aligned), int64_t{end + kElements})) - kElements;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x % kWarp) * kElements; i < end; i += kWarp * kElements) {
    const T* from = aligned + i;
    if (i >= first_whole && i <= last_whole) {
      ptx::copy_async<kChunkBytes>(staged + i, from, kChunkBytes);
    } else {
      for (int e = 0; e < kElements; ++e) {
        staged[i + e] = from + e >= tensor && from + e < tensor_end ? from[e] : T{};
      }
    }
  }
}

// relu of what has been rounded: the same as before rounding. NaN stays NaN.
template <typename T>
__device__ __forceinline__ T relu_of(T value) {
  return Numeric<T>::load(value) <= 0 ? T{} : value;
}

template <typename T, int count>
__device__ __forceinline__ ptx::Vector<T, count> relu_of(ptx::Vector<T, count> chunk) {
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const auto pair = ptx::maximum_of_pairs<T>({{chunk[i], chunk[i + 1]}}, {});
      chunk[i] = pair[0];
      chunk[i + 1] = pair[1];
    }
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) chunk[i] = relu_of(chunk[i]);
  }
  return chunk;
}

// The way back: count elements from staged[misalignment(begin)] on, or their relu, nothing outside of them.
template <typename T>
__device__ __forceinline__ void store_flat(T* begin, int count, const T* staged, bool relu) {
  constexpr int kElements = kChunk<T>;
  const int lead = misalignment(begin), end = lead + count;
  T* aligned = begin - lead;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x % kWarp) * kElements; i < end; i += kWarp * kElements) {
    if (i >= lead && i + kElements <= end) {
      auto chunk = ptx::load_vector<kElements>(staged + i);
      if (relu) chunk = relu_of(chunk);
      ptx::store_global(aligned + i, chunk);
    } else {
      for (int e = max(lead - i, 0); e < min(end - i, kElements); ++e) {
        aligned[i + e] = relu ? relu_of(staged[i + e]) : staged[i + e];
      }
    }
  }
}

// Rows [first, end) of the source that the outputs' rows [output, output_end) read, clipped to the plane; one row at
// least, so that there is something to read where all taps are outside.
struct RowRange {
  int first, end;

  __device__ __forceinline__ RowRange(const Axis& axis, bool transposed, int output, int output_end) {
    const int reach = (axis.taps - 1) * axis.dilation;
    int low, high;
    if (transposed) {
      low = (max(output + axis.offset - reach, 0) + axis.stride - 1) / axis.stride;
      high = output_end - 1 + axis.offset < 0 ? 0 : (output_end - 1 + axis.offset) / axis.stride + 1;
    } else {
      low = output * axis.stride - axis.offset;
      high = (output_end - 1) * axis.stride - axis.offset + reach + 1;
    }
    first = min(max(low, 0), axis.source - 1);
    end = max(min(high, axis.source), first + 1);
  }
};

// Which planes and rows a warp works on: several whole planes that follow each other, or some rows of one.
struct PlaneTiling {
  int64_t planes;      // N * K
  int planes_of_tile;  // more than 1 only where strip_rows is the whole plane
  int strip_rows;
  FastDivider<uint32_t> strips;    // of a plane
  FastDivider<uint32_t> channels;  // K
};

}  // namespace fastconv::depthwise
