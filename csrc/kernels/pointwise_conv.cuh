// 1x1 convolution of NCHW tensors as the matrix products they are, read and written where they lie:
//
//   fprop  y[image][filter, pixel]  = sum over channels of w[filter, channel] * x[image][channel, pixel]
//   dgrad  dx[image][channel, pixel] = sum over filters of w[filter, channel] * dy[image][filter, pixel]
//   wgrad  dw[filter, channel]      = sum over images and pixels of dy[image][filter, pixel] * x[image][channel, pixel]
//
// The pixels of all images stand in one row of chunks of 16 bytes, so that a tile may hold the end of one image and the
// beginning of the next.
#pragma once

#include "kernels/mma_conv/copy.cuh"
#include "kernels/mma_conv/lower_bound.h"
#include "kernels/mma_conv/plain_rows.cuh"
#include "kernels/mma_conv/wgrad_gemm.cuh"

namespace fastconv::mma {

enum class PointwisePass { fprop, dgrad, wgrad };

// A matrix whose rows are contiguous, in one piece (weights) or in one for each image (pixels).
struct PointwiseOperand {
  const void* elements;
  int64_t pitch, batch;          // from a row, and from an image, to the next
  FastDivider<uint32_t> chunks;  // of a row of one image
  int images, length;            // elements of a row of one image
  int rows;
  int piece_bytes;  // narrow kernels: what one copy moves
};

struct PointwiseParameters {
  PointwiseOperand left, right;
  OutputParameters out;
  bool is_plain;     // no residual, no partial sums, a lower bound for an activation, whole aligned chunks
  const void* bias;  // fprop, dgrad: one for each row, or null
  int64_t output_batch, output_row, residual_batch, residual_row;
  FastDivider<uint32_t> chunks;  // of a row of one image of the output
  int images, length;            // pixels (fprop, dgrad) or channels (wgrad) of a row of the output
  int rows;
  FastDivider<uint32_t> row_tiles, tiles_of_split, splits;
  int slices;
  float* partial_bias;  // wgrad: [split][rows], or null
  void* bias_gradient;  // wgrad: [rows] where the sum is not split, or null
};

// A tile of `rows` rows of `chunks` chunks on its way to shared memory. depthwise: rows are terms of the sum, which
// lanes read across, of float32 word by word.
template <class Shape, bool narrow, bool depthwise, int rows, int chunks>
class PointwiseLoader {
  using Element = typename Shape::Element;
  static constexpr int kRowStep = Shape::kThreads / chunks, kRowsOfThread = rows / kRowStep;
  static_assert(rows % kRowStep == 0, "whole rows for every thread");

 public:
  __device__ __forceinline__ explicit PointwiseLoader(const PointwiseOperand& operand)
      : operand_(operand), row_(threadIdx.x / chunks), chunk_(threadIdx.x % chunks) {}

  // The tile begins at this row and chunk of the matrix.
  __device__ __forceinline__ void load(unsigned char* tile, int first_row, uint32_t first_chunk) const {
    uint32_t place = first_chunk + chunk_;
    const uint32_t image = operand_.chunks.split(place);
    const int left =
        image < static_cast<uint32_t>(operand_.images) ? operand_.length - static_cast<int>(place) * Shape::kChunk : 0;
    const Element* from = static_cast<const Element*>(operand_.elements) + image * operand_.batch +
                          int64_t{place} * Shape::kChunk + (first_row + row_) * operand_.pitch;
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      const int row = row_ + i * kRowStep;
      const bool valid = left > 0 && first_row + row < operand_.rows;
      copy_chunk<Element, narrow>(tile + place_of(row) * 16, from + i * kRowStep * operand_.pitch, valid, left,
                                  operand_.piece_bytes);
    }
  }

 private:
  __device__ __forceinline__ int place_of(int row) const {
    if constexpr (depthwise && sizeof(Element) == 4) return swizzled_for_words<chunks>(row, chunk_);
    return swizzled<chunks>(row, chunk_);
  }

  const PointwiseOperand& operand_;
  const int row_, chunk_;
};

// Of a float32 matrix: position counts the elements of a row, each image's filled up to whole chunks.
__device__ __forceinline__ float element_of(const PointwiseOperand& operand, int row, int64_t position) {
  constexpr int kChunk = 4;
  uint32_t place = static_cast<uint32_t>(position / kChunk);
  const uint32_t image = operand.chunks.split(place);
  const int column = static_cast<int>(place) * kChunk + static_cast<int>(position % kChunk);
  if (row >= operand.rows || image >= static_cast<uint32_t>(operand.images) || column >= operand.length) return 0;
  return static_cast<const float*>(operand.elements)[image * operand.batch + row * operand.pitch + column];
}

// One output over some of the sum's terms, and of the bias's gradient where there is no column, in float32 arithmetic.
template <PointwisePass pass>
__device__ float exact_pointwise(const PointwiseParameters& parameters, int row, int64_t column, int64_t begin,
                                 int64_t end, float sum) {
  for (int64_t k = begin; k < end; ++k) {
    const float left = pass == PointwisePass::dgrad ? element_of(parameters.left, static_cast<int>(k), row)
                                                    : element_of(parameters.left, row, k);
    if (column < 0) {
      sum += left;
    } else {
      sum = fmaf(left,
                 pass == PointwisePass::wgrad ? element_of(parameters.right, static_cast<int>(column), k)
                                              : element_of(parameters.right, static_cast<int>(k), column),
                 sum);
    }
  }
  return sum;
}

// Of the warp.
template <class Shape>
__device__ __forceinline__ bool has_suspect(const Accumulators<Shape>& accumulators, const Suspicion& suspicion) {
  bool found = false;
#pragma unroll
  for (const auto& of_rows : accumulators.sums) {
#pragma unroll
    for (const auto& four : of_rows) {
#pragma unroll
      for (int i = 0; i < 4; ++i) found |= suspicion(four[i]);
    }
  }
  return __any_sync(0xffffffffu, found);
}

template <class Shape>
constexpr int pointwise_shared_bytes() {
  constexpr int after = Shape::kStagingBytes + Shape::kRows * static_cast<int>(sizeof(RowPlace));
  constexpr int during = Shape::kStages * Shape::kStageBytes;
  return during > after ? during : after;
}

template <class Shape, PointwisePass pass, bool narrow>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    pointwise_gemm(const __grid_constant__ PointwiseParameters parameters) {
  using Element = typename Shape::Element;
  constexpr int kDepthChunks = Shape::kDepth / Shape::kChunk, kColumnChunks = Shape::kColumns / Shape::kChunk;
  constexpr int kRowChunks = Shape::kRows / Shape::kChunk;
  constexpr bool kLeftDepthwise = pass == PointwisePass::dgrad, kRightDepthwise = pass != PointwisePass::wgrad;
  auto* pipeline = ptx::dynamic_shared_memory<unsigned char>();                      // stages, then staging
  auto* output_rows = reinterpret_cast<RowPlace*>(pipeline + Shape::kStagingBytes);  // [kRows], after the main loop

  uint32_t rest = blockIdx.x;
  const uint32_t split = parameters.tiles_of_split.split(rest);
  const uint32_t column_tile = parameters.row_tiles.split(rest);
  const int first_row = rest * Shape::kRows;
  const int begin = parameters.splits.divide(parameters.slices * split);
  const int slices = parameters.splits.divide(parameters.slices * (split + 1)) - begin;

  using LeftLoader =
      typename std::conditional<kLeftDepthwise, PointwiseLoader<Shape, narrow, true, Shape::kDepth, kRowChunks>,
                                PointwiseLoader<Shape, narrow, false, Shape::kRows, kDepthChunks>>::type;
  using RightLoader =
      typename std::conditional<kRightDepthwise, PointwiseLoader<Shape, narrow, true, Shape::kDepth, kColumnChunks>,
                                PointwiseLoader<Shape, narrow, false, Shape::kColumns, kDepthChunks>>::type;
  const LeftLoader left_loader(parameters.left);
  const RightLoader right_loader(parameters.right);

  const WarpPlace<Shape> warp;
  const int lane = threadIdx.x & 31;
  Accumulators<Shape> accumulators;
  if (pass != PointwisePass::wgrad && parameters.bias != nullptr) {
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + warp.row + 16 * m + 8 * half + (lane >> 2);
        if (row >= parameters.rows) continue;
        const float bias = Numeric<Element>::load(static_cast<const Element*>(parameters.bias)[row]);
#pragma unroll
        for (int n = 0; n < Shape::kColumnTiles; ++n) {
          accumulators.sums[m][n][2 * half] = accumulators.sums[m][n][2 * half + 1] = bias;
        }
      }
    }
  }
  float bias_sums[Shape::kRowTiles][1][4] = {};
  const bool wants_bias = pass == PointwisePass::wgrad && column_tile == 0 && warp.column == 0 &&
                          (parameters.partial_bias != nullptr || parameters.bias_gradient != nullptr);
  OperandRange range;
  run_pipeline<Shape>(
      accumulators, pipeline, slices, range,
      [&](unsigned char* stage, int slice, int) {
        const int first = begin + slice;
        left_loader.load(stage, kLeftDepthwise ? first * Shape::kDepth : first_row,
                         kLeftDepthwise ? first_row / Shape::kChunk : first * kDepthChunks);
        right_loader.load(stage + Shape::kLeftBytes,
                          kRightDepthwise ? first * Shape::kDepth : static_cast<int>(column_tile) * Shape::kColumns,
                          kRightDepthwise ? column_tile * kColumnChunks : first * kDepthChunks);
      },
      [&](Fragments<Shape>& fragments, const unsigned char* stage, int step) {
        if constexpr (kLeftDepthwise) {
          load_left_depthwise<Shape>(fragments, stage, warp.row, step);
        } else {
          load_left_rowwise<Shape>(fragments, stage, warp.row, step);
        }
        if constexpr (kRightDepthwise) {
          load_right_depthwise<Shape>(fragments, stage + Shape::kLeftBytes, warp.column, step);
        } else {
          load_right_rowwise<Shape>(fragments, stage + Shape::kLeftBytes, warp.column, step);
        }
      },
      [&](const Fragments<Shape>& fragments) {
        if (wants_bias) add_rows<Shape>(bias_sums, fragments);
      });

  constexpr bool kSplit = Shape::kPrecision == Precision::split_tf32;
  const Suspicion suspicion(range);
  const auto column_at = [&](int tile_column) {
    const uint32_t chunk = column_tile * kColumnChunks + tile_column / Shape::kChunk;
    uint32_t place = chunk;
    const uint32_t image = parameters.chunks.split(place);
    const int first = static_cast<int>(place) * Shape::kChunk;
    return ColumnPlace{image * parameters.output_batch + first * parameters.out.column_stride,
                       image * parameters.residual_batch + first * parameters.out.residual_column_stride,
                       int64_t{chunk} * Shape::kChunk, 0,
                       image < static_cast<uint32_t>(parameters.images) ? parameters.length - first : 0};
  };
  const auto store_plain = [&] {
    using Plain = PlainRows<Shape>;
    static_assert(Shape::kThreads / 32 * Plain::kWarpBytes <= Shape::kStages * Shape::kStageBytes, "stages hold it");
    const ColumnPlace column = column_at(Plain::column());
    const int row = first_row + Plain::row();
    Plain::store(accumulators, pipeline, lower_bound_of(parameters.out.activation),
                 static_cast<Element*>(parameters.out.output) + column.output + row * parameters.output_row,
                 parameters.output_row, column.count > 0 ? parameters.rows - row : 0);
  };
  // Warps with suspect sums go the general way while others do not.
  if (kSplit || !parameters.is_plain) {
    for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
      const int row = first_row + i;
      output_rows[i] = {row < parameters.rows ? row * parameters.output_row : -1, row * parameters.residual_row, row};
    }
    __syncthreads();
  }
  const int64_t first_term = int64_t{begin} * Shape::kDepth, last_term = first_term + int64_t{slices} * Shape::kDepth;
  if (parameters.is_plain && !(kSplit && has_suspect<Shape>(accumulators, suspicion))) {
    store_plain();
  } else {
    store_tile<Shape>(
        accumulators, reinterpret_cast<float*>(pipeline), output_rows, parameters.out, split, column_at,
        [&](float sum) { return kSplit && suspicion(sum); },
        [&](int tile_row, int tile_column, float sum) {
          if constexpr (!kSplit) return sum;
          const int row = first_row + tile_row;
          const float bias = pass != PointwisePass::wgrad && parameters.bias != nullptr
                                 ? static_cast<const float*>(parameters.bias)[row]
                                 : 0.0f;
          return exact_pointwise<pass>(parameters, row, int64_t{column_tile} * Shape::kColumns + tile_column,
                                       first_term, last_term, bias);
        });
  }

  // All eight columns of the product with ones are the same; the lanes of the first hold them.
  if (wants_bias && threadIdx.x % 4 == 0) {
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + warp.row + 16 * m + 8 * half + (lane >> 2);
        if (row >= parameters.rows) continue;
        float sum = bias_sums[m][0][2 * half];
        if constexpr (sizeof(Element) == 4) {
          if (suspicion(sum)) sum = exact_pointwise<pass>(parameters, row, -1, first_term, last_term, 0);
        }
        if (parameters.partial_bias != nullptr) {
          parameters.partial_bias[split * parameters.rows + row] = sum;
        } else {
          static_cast<Element*>(parameters.bias_gradient)[row] = Numeric<Element>::store(sum);
        }
      }
    }
  }
}

}  // namespace fastconv::mma
