// wgrad as a matrix product over all output pixels:
//
//   dw[filter, (tap, channel)] = sum over pixels of dy[pixel, filter] * x[place of pixel at tap, channel]
//
// Filters and weights are few and pixels many, so the sum is split over blocks and added up afterwards, in order
// (reduce.cuh). Blocks of the first tile of columns multiply dy by ones besides: the bias gradient.
#pragma once

#include "kernels/mma_conv/pipeline.cuh"
#include "kernels/mma_conv/wgrad_loaders.cuh"

namespace fastconv::mma {

struct WgradTile {
  uint32_t split, group, first_filter, first_column, column_tile;

  template <class Shape>
  __device__ static __forceinline__ WgradTile of(const WgradParameters& parameters) {
    WgradTile tile;
    uint32_t rest = blockIdx.x;
    tile.split = parameters.tiles_of_split.split(rest);
    tile.group = parameters.tiles_of_group.split(rest);
    tile.column_tile = parameters.row_tiles.split(rest);
    tile.first_filter = rest * Shape::kRows;
    tile.first_column = tile.column_tile * Shape::kColumns;
    return tile;
  }
};

// One weight's gradient, or with no column the bias's, over some pixels, in float32 arithmetic.
template <class Shape>
__device__ float exact_wgrad(const WgradParameters& parameters, int group, int filter, int column, uint32_t begin,
                             uint32_t end) {
  const auto* gradient =
      static_cast<const float*>(parameters.gradient) + int64_t{group} * parameters.gradient_group_step + filter;
  const auto* source = static_cast<const float*>(parameters.source) + int64_t{group} * parameters.source_group_step;
  uint32_t channel = column < 0 ? 0 : column;
  uint32_t tap_column = parameters.channel_pitch.split(channel);
  const int tap_row = parameters.taps_across.split(tap_column) * parameters.dilation_height;
  const int tap_shift = tap_column * parameters.dilation_width;
  source += tap_row * parameters.source_strides.row + tap_shift * parameters.source_strides.column + channel;
  float sum = 0;
  for (uint32_t pixel = begin; pixel < end; ++pixel) {
    const PixelPlace place = pixel_place(parameters, pixel);
    if (place.gradient < 0) break;
    if (column < 0) {
      sum += gradient[place.gradient];
    } else if (parameters.border.is_mapped) {
      const BorderWay way =
          border_way(parameters.border, parameters.source_strides, place.row + tap_row, place.column + tap_shift);
      const float value = way.is_constant ? parameters.border.fill : source[place.source + way.distance];
      sum = fmaf(gradient[place.gradient], value, sum);
    } else {
      const bool inside =
          static_cast<uint32_t>(place.row + tap_row) < static_cast<uint32_t>(parameters.source_height) &&
          static_cast<uint32_t>(place.column + tap_shift) < static_cast<uint32_t>(parameters.source_width);
      sum = fmaf(gradient[place.gradient], inside ? source[place.source] : 0.0f, sum);
    }
  }
  return sum;
}

// sums += left * ones, with float32's precision where the element is float32.
template <class Shape>
__device__ __forceinline__ void add_rows(float (&sums)[Shape::kRowTiles][1][4], const Fragments<Shape>& fragments) {
  using Element = typename Shape::Element;
  constexpr uint32_t kOnes = sizeof(Element) == 4                 ? 0x3f800000u
                             : std::is_same<Element, Half>::value ? 0x3c003c00u
                                                                  : 0x3f803f80u;
  const uint32_t ones[1][2] = {{kOnes, kOnes}};
  if constexpr (Shape::kPrecision == Precision::native) {
    ptx::multiply_add<typename Shape::Operand>(sums, fragments.left, ones);
  } else {
    Fragments<Shape> high, low;
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const SplitNumber parts = split_number(fragments.left[m][i]);
        high.left[m][i] = parts.high;
        low.left[m][i] = parts.low;
      }
    }
    ptx::multiply_add<typename Shape::Operand>(sums, low.left, ones);
    ptx::multiply_add<typename Shape::Operand>(sums, high.left, ones);
  }
}

template <class Shape>
constexpr int wgrad_shared_bytes() {
  constexpr int tables = Shape::kStages * static_cast<int>(sizeof(PixelTable<Shape::kDepth>));
  constexpr int after = Shape::kStagingBytes + Shape::kRows * static_cast<int>(sizeof(RowPlace));
  constexpr int during = Shape::kStages * Shape::kStageBytes;
  return tables + (during > after ? during : after);
}

template <class Shape, bool narrow>
__global__ void __launch_bounds__(Shape::kThreads, 1) wgrad_gemm(const __grid_constant__ WgradParameters parameters) {
  using Element = typename Shape::Element;
  constexpr int kDepth = Shape::kDepth, kStages = Shape::kStages;
  auto* tables = ptx::dynamic_shared_memory<PixelTable<kDepth>>();                   // [kStages]
  auto* pipeline = reinterpret_cast<unsigned char*>(tables + kStages);               // stages, then staging
  auto* output_rows = reinterpret_cast<RowPlace*>(pipeline + Shape::kStagingBytes);  // [kRows], after the main loop

  const WgradTile tile = WgradTile::of<Shape>(parameters);
  const int begin = parameters.splits.divide(parameters.iterations * tile.split);
  const int slices = parameters.splits.divide(parameters.iterations * (tile.split + 1)) - begin;
  const auto place_pixels = [&](int slice, int slot) {
    for (int i = threadIdx.x; i < kDepth; i += Shape::kThreads) {
      tables[slot].store(i, pixel_place(parameters, (begin + slice) * kDepth + i));
    }
  };
  for (int i = 0; i < kStages - 1; ++i) place_pixels(i, i);
  __syncthreads();

  const GradientLoader<Shape, narrow> gradient_loader(parameters, tile.group, tile.first_filter);
  const TapLoader<Shape, narrow> tap_loader(parameters, tile.group, tile.first_column);
  Accumulators<Shape> accumulators;
  float bias_sums[Shape::kRowTiles][1][4] = {};
  OperandRange range;
  const WarpPlace<Shape> warp;
  const bool wants_bias = tile.column_tile == 0 && warp.column == 0 &&
                          (parameters.partial_bias != nullptr || parameters.bias_gradient != nullptr);
  run_pipeline<Shape>(
      accumulators, pipeline, slices, range,
      [&](unsigned char* stage, int slice, int slot) {
        gradient_loader.load(stage, tables[slot]);
        tap_loader.load(stage + Shape::kLeftBytes, tables[slot]);
        // The slot that this overwrites was read a whole slice ago.
        const int next = slot + 1 == kStages ? 0 : slot + 1;
        if (slice >= kStages - 2) place_pixels(slice + 1, next);
      },
      [&](Fragments<Shape>& fragments, const unsigned char* stage, int step) {
        load_depthwise<Shape>(fragments, stage, stage + Shape::kLeftBytes, warp.row, warp.column, step);
      },
      [&](const Fragments<Shape>& fragments) {
        if (wants_bias) add_rows<Shape>(bias_sums, fragments);
      });

  const int64_t group_filter = int64_t{tile.group} * parameters.filters;
  for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) {
    const int filter = tile.first_filter + i;
    const bool exists = filter < parameters.filters;
    output_rows[i] = {exists ? (group_filter + filter) * parameters.filter_stride : -1, 0, group_filter + filter};
  }
  __syncthreads();

  const uint32_t first_pixel = begin * kDepth, last_pixel = (begin + slices) * kDepth;
  const Suspicion suspicion(range);
  const auto column_at = [&](int tile_column) {
    const int column = tile.first_column + tile_column;
    uint32_t channel = column;
    const uint32_t tap = parameters.channel_pitch.split(channel);
    uint32_t tap_column = tap;
    const uint32_t tap_row = parameters.taps_across.split(tap_column);
    const bool exists = tap < static_cast<uint32_t>(parameters.taps);
    return ColumnPlace{tap_row * parameters.tap_row_stride + tap_column * parameters.tap_column_stride +
                           channel * parameters.out.column_stride,
                       0, column, 0, exists ? parameters.channels - static_cast<int>(channel) : 0};
  };
  constexpr bool kSplit = Shape::kPrecision == Precision::split_tf32;
  store_tile<Shape>(
      accumulators, reinterpret_cast<float*>(pipeline), output_rows, parameters.out, tile.split, column_at,
      [&](float sum) { return kSplit && suspicion(sum); },
      [&](int row, int column, float sum) {
        if constexpr (!kSplit) return sum;
        return exact_wgrad<Shape>(parameters, tile.group, tile.first_filter + row, tile.first_column + column,
                                  first_pixel, last_pixel);
      },
      parameters.adds_to_partial);

  // All eight columns of the product with ones are the same; the lanes of the first hold them.
  if (wants_bias && threadIdx.x % 4 == 0) {
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int filter = tile.first_filter + warp.row + 16 * m + 8 * half + static_cast<int>(threadIdx.x % 32 / 4);
        if (filter >= parameters.filters) continue;
        float sum = bias_sums[m][0][2 * half];
        if constexpr (sizeof(Element) == 4) {
          if (suspicion(sum)) sum = exact_wgrad<Shape>(parameters, tile.group, filter, -1, first_pixel, last_pixel);
        }
        if (parameters.partial_bias != nullptr) {
          const int64_t filters = int64_t{parameters.groups} * parameters.filters;
          float* partial = parameters.partial_bias + tile.split * filters + group_filter + filter;
          *partial = parameters.adds_to_partial ? *partial + sum : sum;
        } else {
          static_cast<Element*>(parameters.bias_gradient)[group_filter + filter] = Numeric<Element>::store(sum);
        }
      }
    }
  }
}

}  // namespace fastconv::mma
