// The shape of a tile, known to the compiler, and where things lie in shared memory.
//
// A block computes kRows x kColumns outputs, a warp kWarpRows x kWarpColumns of them, kDepth terms of the sum at a
// time. Each of the kStages stages holds one such slice of both operands, in 16-byte chunks.
#pragma once

#include <cstdint>

#include "common/numeric.h"
#include "ptx/device.h"
#include "ptx/mma.h"

namespace fastconv::mma {

// How float32 is multiplied: rounded to TF32, or split into two TF32 numbers and multiplied in three terms.
enum class Precision { native, tf32, split_tf32 };

template <class ElementType, Precision precision_, int rows, int columns, int depth, int stages, int warp_rows,
          int warp_columns>
struct TileShape {
  using Element = ElementType;  // Half, BFloat16 or float
  // What the tensor core calls the element.
  using Operand = typename std::conditional<sizeof(Element) == 4, ptx::Tf32, Element>::type;
  static constexpr Precision kPrecision = precision_;
  static constexpr int kRows = rows, kColumns = columns, kDepth = depth, kStages = stages;
  static constexpr int kWarpRows = warp_rows, kWarpColumns = warp_columns;
  static constexpr int kWarpsAcross = columns / warp_columns;
  static constexpr int kThreads = rows / warp_rows * kWarpsAcross * 32;
  static constexpr int kRowTiles = warp_rows / 16, kColumnTiles = warp_columns / 8;  // mma tiles of a warp
  static constexpr int kChunk = 16 / sizeof(Element);                                // elements of a chunk
  static constexpr int kStepDepth = 2 * kChunk;                                      // k of one mma
  static constexpr int kSteps = depth / kStepDepth;
  static constexpr int kLeftBytes = rows * depth * static_cast<int>(sizeof(Element));  // of a stage
  static constexpr int kRightBytes = columns * depth * static_cast<int>(sizeof(Element));
  static constexpr int kStageBytes = kLeftBytes + kRightBytes;

  // The epilogue turns 16 rows of a warp at a time; the extra 8 columns spread the rows over the banks.
  static constexpr int kStagingPitch = warp_columns + 8;
  static constexpr int kStagingBytes = kThreads / 32 * 16 * kStagingPitch * 4;
  static constexpr int kPipelineBytes = kStages * kStageBytes > kStagingBytes ? kStages * kStageBytes : kStagingBytes;

  static_assert(warp_rows % 16 == 0 && warp_columns % 16 == 0 && depth % kStepDepth == 0, "whole mma tiles");
};

// Where chunk `chunk` of row `row` lies in a tile of rows of `chunks` chunks, in chunks. The exclusive or spreads the
// eight chunks that ldmatrix reads at once, one of each of eight neighbouring rows, over all 32 banks, and keeps the
// chunks of a row that neighbouring threads write in one 128-byte line.
template <int chunks>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  static_assert(chunks % 4 == 0, "rows of whole half lines");
  return row * chunks + (chunks % 8 == 0 ? chunk ^ (row & 7) : chunk ^ ((row >> 1) & 3));
}

// The same for float32 tiles that are read word by word across rows: four neighbouring rows, two chunks of each at a
// time.
template <int chunks>
__device__ __forceinline__ int swizzled_for_words(int row, int chunk) {
  static_assert(chunks % 8 == 0, "whole lines");
  return row * chunks + (chunk ^ ((row & 3) << 1));
}

}  // namespace fastconv::mma
