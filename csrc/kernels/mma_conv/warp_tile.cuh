// What a warp does with one stage: fragments from shared memory, then mma.
//
// Row-wise operands (fprop, dgrad) lie as [row][depth]; depth-wise ones (wgrad) as [depth][row], read with a
// transposing ldmatrix, or word by word where elements have 32 bits, which ldmatrix cannot transpose.
#pragma once

#include "kernels/mma_conv/shape.cuh"
#include "ptx/ldmatrix.h"

namespace fastconv::mma {

template <class Shape>
struct Fragments {
  uint32_t left[Shape::kRowTiles][4];
  uint32_t right[Shape::kColumnTiles][2];
};

// left: [kRows][kDepth], swizzled. Loads the fragments of mma step `step`.
template <class Shape>
__device__ __forceinline__ void load_left_rowwise(Fragments<Shape>& fragments, const unsigned char* left, int warp_row,
                                                  int step) {
  constexpr int kChunks = Shape::kDepth / Shape::kChunk;
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int m = 0; m < Shape::kRowTiles; ++m) {
    const int row = warp_row + 16 * m + (lane & 15), chunk = 2 * step + (lane >> 4);
    ptx::load_matrices<4>(fragments.left[m], left + swizzled<kChunks>(row, chunk) * 16);
  }
}

// right: [kColumns][kDepth], swizzled.
template <class Shape>
__device__ __forceinline__ void load_right_rowwise(Fragments<Shape>& fragments, const unsigned char* right,
                                                   int warp_column, int step) {
  constexpr int kChunks = Shape::kDepth / Shape::kChunk;
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int n = 0; n < Shape::kColumnTiles; n += 2) {
    const int row = warp_column + 8 * n + (lane & 7) + ((lane >> 4) << 3), chunk = 2 * step + ((lane >> 3) & 1);
    uint32_t pair[4];
    ptx::load_matrices<4>(pair, right + swizzled<kChunks>(row, chunk) * 16);
    for (int i = 0; i < 4; ++i) fragments.right[n + i / 2][i % 2] = pair[i];
  }
}

template <class Shape>
__device__ __forceinline__ void load_rowwise(Fragments<Shape>& fragments, const unsigned char* left,
                                             const unsigned char* right, int warp_row, int warp_column, int step) {
  load_left_rowwise<Shape>(fragments, left, warp_row, step);
  load_right_rowwise<Shape>(fragments, right, warp_column, step);
}

// A word of a float32 tile of rows of `chunks` chunks.
template <int chunks>
__device__ __forceinline__ uint32_t word_of(const unsigned char* tile, int row, int column) {
  return reinterpret_cast<const uint32_t*>(tile)[swizzled_for_words<chunks>(row, column >> 2) * 4 + (column & 3)];
}

// left: [kDepth][kRows], swizzled.
template <class Shape>
__device__ __forceinline__ void load_left_depthwise(Fragments<Shape>& fragments, const unsigned char* left,
                                                    int warp_row, int step) {
  constexpr int kChunks = Shape::kRows / Shape::kChunk;
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int m = 0; m < Shape::kRowTiles; ++m) {
    if constexpr (sizeof(typename Shape::Element) == 2) {
      const int k = 16 * step + ((lane >> 4) << 3) + (lane & 7);
      const int chunk = warp_row / 8 + 2 * m + ((lane >> 3) & 1);
      ptx::load_matrices<4, true>(fragments.left[m], left + swizzled<kChunks>(k, chunk) * 16);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int k = 8 * step + (lane & 3) + 4 * (i >> 1), column = warp_row + 16 * m + (lane >> 2) + 8 * (i & 1);
        fragments.left[m][i] = word_of<kChunks>(left, k, column);
      }
    }
  }
}

// right: [kDepth][kColumns], swizzled.
template <class Shape>
__device__ __forceinline__ void load_right_depthwise(Fragments<Shape>& fragments, const unsigned char* right,
                                                     int warp_column, int step) {
  constexpr int kChunks = Shape::kColumns / Shape::kChunk;
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int n = 0; n < Shape::kColumnTiles; n += 2) {
    if constexpr (sizeof(typename Shape::Element) == 2) {
      const int k = 16 * step + (lane & 15), chunk = warp_column / 8 + n + (lane >> 4);
      uint32_t pair[4];
      ptx::load_matrices<4, true>(pair, right + swizzled<kChunks>(k, chunk) * 16);
      for (int i = 0; i < 4; ++i) fragments.right[n + i / 2][i % 2] = pair[i];
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int k = 8 * step + (lane & 3) + 4 * (i & 1), column = warp_column + 8 * (n + (i >> 1)) + (lane >> 2);
        fragments.right[n + (i >> 1)][i & 1] = word_of<kChunks>(right, k, column);
      }
    }
  }
}

template <class Shape>
__device__ __forceinline__ void load_depthwise(Fragments<Shape>& fragments, const unsigned char* left,
                                               const unsigned char* right, int warp_row, int warp_column, int step) {
  load_left_depthwise<Shape>(fragments, left, warp_row, step);
  load_right_depthwise<Shape>(fragments, right, warp_column, step);
}

// A float32 as the sum of two TF32 numbers, to 2^-23 of it.
struct SplitNumber {
  uint32_t high, low;
};
__device__ __forceinline__ SplitNumber split_number(uint32_t bits) {
  const uint32_t high = ptx::round_to_tf32(bits);
  return {high, ptx::round_to_tf32(__float_as_uint(__uint_as_float(bits) - __uint_as_float(high)))};
}

// The range of the operands that a lane has seen, as twice their bits, which orders magnitudes: values so small that
// their low parts fall below TF32's range are noticed, not repaired. See Suspicion in pipeline.cuh.
struct OperandRange {
  uint32_t smallest = 0xffffffffu;  // less 1, so that zeros wrap around and are not counted
  uint32_t largest = 0;

  __device__ __forceinline__ void see(uint32_t bits) {
    smallest = min(smallest, 2 * bits - 1);
    largest = max(largest, 2 * bits);
  }
};

// sums += left * right of one step.
template <class Shape>
__device__ __forceinline__ void multiply(float (&sums)[Shape::kRowTiles][Shape::kColumnTiles][4],
                                         Fragments<Shape>& fragments, OperandRange& range) {
  using Operand = typename Shape::Operand;
  if constexpr (Shape::kPrecision == Precision::native) {
    ptx::multiply_add<Operand>(sums, fragments.left, fragments.right);
  } else if constexpr (Shape::kPrecision == Precision::tf32) {
#pragma unroll
    for (auto& tile : fragments.left) {
      for (uint32_t& bits : tile) bits = ptx::round_to_tf32(bits);
    }
#pragma unroll
    for (auto& tile : fragments.right) {
      for (uint32_t& bits : tile) bits = ptx::round_to_tf32(bits);
    }
    ptx::multiply_add<Operand>(sums, fragments.left, fragments.right);
  } else {
    Fragments<Shape> low;
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        range.see(fragments.left[m][i]);
        const SplitNumber parts = split_number(fragments.left[m][i]);
        fragments.left[m][i] = parts.high;
        low.left[m][i] = parts.low;
      }
    }
#pragma unroll
    for (int n = 0; n < Shape::kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        range.see(fragments.right[n][i]);
        const SplitNumber parts = split_number(fragments.right[n][i]);
        fragments.right[n][i] = parts.high;
        low.right[n][i] = parts.low;
      }
    }
    ptx::multiply_add<Operand>(sums, low.left, fragments.right);
    ptx::multiply_add<Operand>(sums, fragments.left, low.right);
    ptx::multiply_add<Operand>(sums, fragments.left, fragments.right);
  }
}

}  // namespace fastconv::mma
