// Depthwise wgrad, W innermost: dw[k, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, k, p u + r dilation - pad, ...].
//
// A block has one filter and a part of the images. Its warps take pieces in turn, rows of one image or several small
// images, copy x and dy as they lie to shared memory, and walk over dy with the sums of all taps in registers: each is
// read from global memory once. Larger filters have their taps
// spread over blocks: pieces of 8 x 2 taps, which are walked down like a filter, or, where the filter steps or dilates,
// kTapsOfWarp of a row.
// Lanes' sums are added in a tree, warps' in order, and blocks' (splits) by split_sum.cuh.
#pragma once

#include "kernels/depthwise/flat.cuh"
#include "kernels/depthwise/planes.cuh"

namespace fastconv::depthwise {

constexpr int kTapsOfWarp = 16;

struct PlanesWgradParameters {
  const void* x;  // [N, C, H, W]
  const void* x_end;
  const void* dy;  // [N, K, P, Q]
  const void* dy_end;
  void* dw;           // [K, 1, R, S]; written where there is one split
  void* db;           // [K], or null; likewise
  float* parts;       // [splits, K, R, S], or null
  float* bias_parts;  // [splits, K]
  Plane x_strides, dy_strides;
  Weights dw_strides;
  Axis rows, columns;
  FastDivider<uint32_t> multiplier;                   // filters of a channel
  FastDivider<uint32_t> output_columns, output_rows;  // of a plane
  LaneGroups lanes;                                   // for filters that are unrolled
  int images, images_of_piece, strip_rows;            // more than one image: strip_rows is the whole plane
  FastDivider<uint32_t> strips;                       // pieces of an image
  int pieces, pieces_of_split;
  FastDivider<uint32_t> filters, tap_groups;  // grid: filters fastest, then tap groups, then splits
  FastDivider<uint32_t> groups_of_row;        // tap groups of a filter row
  int x_pitch, dy_pitch;                      // elements from image to image in shared memory
  int dy_place, warp_bytes;                   // in a warp's shared memory
};

// Adds to `sums` what the gradients 0 .. count - 1 of the lane's columns, of which `columns` exist, have with x, down
// from source place (row, column) of the first one's tap (0, 0). All lanes come here and make `steps` steps, the most
// of any count.
template <class Filter, typename T>
__device__ __forceinline__ void walk_gradients(const PlaneView<T>& view, const T* gradients, int pitch, int columns,
                                               int row, int column, int steps, int count, float (&sums)[Filter::kTaps],
                                               float& bias) {
  constexpr int kR = Filter::kRows, kS = Filter::kColumns, kU = Filter::kStride, kOpen = (kR + kU - 1) / kU;
  constexpr int kColumns = kLaneColumns<T, Filter>, kWidth = kS + (kColumns - 1) * kU;
  bool inside[kWidth];
  find_inside(column, view.width, inside);
  int staged_row = row - view.first_row;
  const T* from = view.rows + staged_row * view.width + column;
  float open[kOpen][kColumns] = {};  // gradients t - k, where t is the step
#pragma unroll 1
  for (int t = 0; t < steps + kOpen - 1; ++t) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int k = kOpen - 1; k > 0; --k) open[k][j] = open[k - 1][j];
      open[0][j] = t < count && j < columns ? Numeric<T>::load(gradients[j]) : 0.0f;
      bias += open[0][j];
    }
    gradients += pitch;
#pragma unroll
    for (int e = 0; e < kU; ++e) {
      if (t < count + kOpen - 1 && static_cast<unsigned>(staged_row) < static_cast<unsigned>(view.staged)) {
        float values[kWidth];
        load_row<-1>(from, inside, values);
#pragma unroll
        for (int k = 0; k < kOpen; ++k) {
          if (e + kU * k >= kR) continue;
#pragma unroll
          for (int s = 0; s < kS; ++s) {
#pragma unroll
            for (int j = 0; j < kColumns; ++j) sums[(e + kU * k) * kS + s] += values[j * kU + s] * open[k][j];
          }
        }
      }
      ++staged_row;
      from += view.width;
    }
  }
}

template <typename T, class Filter>
__global__ void __launch_bounds__(kPlaneThreads, 4)
    planes_wgrad_kernel(const __grid_constant__ PlanesWgradParameters p) {
  constexpr int kTaps = Filter::kFixed ? Filter::kTaps : kTapsOfWarp, kColumns = kLaneColumns<T, Filter>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();
  unsigned char* own = shared + warp * p.warp_bytes;
  T* staged_x = reinterpret_cast<T*>(own) + kPlaneGuard;
  T* staged_dy = reinterpret_cast<T*>(own + p.dy_place);

  uint32_t filter = blockIdx.x;
  uint32_t tap_group = p.filters.split(filter);
  const uint32_t split = p.tap_groups.split(tap_group);
  const uint32_t channel = p.multiplier.divide(filter);
  uint32_t first_tap = tap_group;
  const int tap_row = p.groups_of_row.split(first_tap) * (Filter::kFixed ? Filter::kRows : 1);
  first_tap *= Filter::kFixed ? Filter::kColumns : kTapsOfWarp;
  const int row_shift = tap_row * p.rows.dilation - p.rows.offset;
  const int column_shift = static_cast<int>(first_tap) * p.columns.dilation - p.columns.offset;

  uint32_t lane_column = lane;
  const int lane_group = p.lanes.columns.split(lane_column);
  float sums[kTaps] = {}, bias = 0;
  const int width = p.columns.source;
  const bool whole = p.images_of_piece > 1;
  const int last = min(static_cast<int>(split + 1) * p.pieces_of_split, p.pieces);
#pragma unroll 1
  for (int piece = static_cast<int>(split) * p.pieces_of_split + warp; piece < last; piece += kPlaneWarps) {
    uint32_t strip = piece;
    const int first_image = static_cast<int>(p.strips.split(strip)) * p.images_of_piece;
    const int images = min(p.images_of_piece, p.images - first_image);
    const int first_row = static_cast<int>(strip) * p.strip_rows;
    const int end_row = min(first_row + p.strip_rows, p.rows.output);
    const RowRange range(p.rows, false, first_row, end_row);
    const T* x = static_cast<const T*>(p.x) + first_image * p.x_strides.batch + channel * p.x_strides.channel +
                 static_cast<int64_t>(range.first) * width;
    const T* dy = static_cast<const T*>(p.dy) + first_image * p.dy_strides.batch + filter * p.dy_strides.channel +
                  static_cast<int64_t>(first_row) * p.columns.output;
    const int x_count = (range.end - range.first) * width, dy_count = (end_row - first_row) * p.columns.output;
    __syncwarp();
#pragma unroll 1
    for (int image = 0; image < images; ++image) {
      const T* from = x + image * p.x_strides.batch;
      T* to = staged_x + image * p.x_pitch;
      stage_flat(to, from, x_count, static_cast<const T*>(p.x), static_cast<const T*>(p.x_end));
      stage_flat(staged_dy + image * p.dy_pitch, dy + image * p.dy_strides.batch, dy_count, static_cast<const T*>(p.dy),
                 static_cast<const T*>(p.dy_end));
      if (Filter::kFixed && lane < kPlaneGuard) {  // rows are read over, see planes.cuh
        to[lane - kPlaneGuard] = T{};
        to[(misalignment(from) + x_count + kChunk<T> - 1) / kChunk<T> * kChunk<T> + lane] = T{};
      }
    }
    ptx::commit_async_copies();
    ptx::wait_async_copies<0>();
    __syncwarp();

    const int rows = end_row - first_row, staged_rows = range.end - range.first, columns = p.columns.output;
    if constexpr (Filter::kFixed) {
      const int strips = (rows + p.lanes.rows - 1) / p.lanes.rows, groups = images * strips;
#pragma unroll 1
      for (int first_group = 0; first_group < groups; first_group += p.lanes.groups) {
        const bool works = lane_group < p.lanes.groups && first_group + lane_group < groups;
        uint32_t walk = works ? first_group + lane_group : 0;
        const uint32_t image = whole ? p.lanes.strips.split(walk) : 0;
        const int row = static_cast<int>(walk) * p.lanes.rows;  // of the piece
        const PlaneView<T> view{staged_x + image * p.x_pitch + misalignment(x + image * p.x_strides.batch), range.first,
                                staged_rows, width};
        const T* gradients =
            staged_dy + image * p.dy_pitch + misalignment(dy + image * p.dy_strides.batch) + row * columns;
#pragma unroll 1
        for (int first = 0; first < columns; first += static_cast<int>(p.lanes.columns.divisor()) * kColumns) {
          const int q = first + static_cast<int>(lane_column) * kColumns;
          const int steps = works && q < columns ? min(p.lanes.rows, rows - row) : 0;
          walk_gradients<Filter>(view, gradients + q, columns, columns - q,
                                 (first_row + row) * Filter::kStride + row_shift, q * Filter::kStride + column_shift,
                                 p.lanes.rows, steps, sums, bias);
        }
      }
    } else {
      const int items = images * rows * columns;
#pragma unroll 1
      for (int item = lane; item < items; item += kWarp) {
        uint32_t q = item;
        uint32_t row = p.output_columns.split(q);
        const uint32_t image = whole ? p.output_rows.split(row) : 0;
        const float gradient = Numeric<T>::load(
            staged_dy[image * p.dy_pitch + misalignment(dy + image * p.dy_strides.batch) + row * columns + q]);
        bias += gradient;
        const PlaneView<T> view{staged_x + image * p.x_pitch + misalignment(x + image * p.x_strides.batch), range.first,
                                staged_rows, width};
        bool row_inside;
        const T* from = view.row((first_row + static_cast<int>(row)) * p.rows.stride + row_shift, row_inside);
        if (!row_inside) continue;
        int column = static_cast<int>(q) * p.columns.stride + column_shift;
#pragma unroll
        for (int s = 0; s < kTaps; ++s) {
          const bool inside = static_cast<unsigned>(column) < static_cast<unsigned>(width);
          const T loaded = from[inside ? column : 0];
          sums[s] += (inside ? Numeric<T>::load(loaded) : 0.0f) * gradient;
          column += p.columns.dilation;
        }
      }
    }
  }

  // Lanes, then warps, in a fixed order.
  float* totals = reinterpret_cast<float*>(shared);  // [warps][taps, bias]
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int i = 0; i < kTaps; ++i) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], distance);
    bias += __shfl_xor_sync(0xffffffffu, bias, distance);
  }
  __syncthreads();
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < kTaps; ++i) totals[warp * (kTaps + 1) + i] = sums[i];
    totals[warp * (kTaps + 1) + kTaps] = bias;
  }
  __syncthreads();
  const int i = threadIdx.x;
  if (i > kTaps) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kPlaneWarps; ++w) total += totals[w * (kTaps + 1) + i];
  const int64_t part = static_cast<int64_t>(split) * p.filters.divisor() + filter;
  if (i == kTaps) {
    if (p.db == nullptr || tap_group != 0) return;
    if (p.parts != nullptr) {
      p.bias_parts[part] = total;
    } else {
      static_cast<T*>(p.db)[filter] = Numeric<T>::store(total);
    }
    return;
  }
  const int r = tap_row + (Filter::kFixed ? i / (Filter::kFixed ? Filter::kColumns : 1) : 0);
  const int s = static_cast<int>(first_tap) + (Filter::kFixed ? i % (Filter::kFixed ? Filter::kColumns : 1) : i);
  if (r >= p.rows.taps || s >= p.columns.taps) return;
  if (p.parts != nullptr) {
    p.parts[(part * p.rows.taps + r) * p.columns.taps + s] = total;
  } else {
    static_cast<T*>(p.dw)[filter * p.dw_strides.filter + r * p.dw_strides.row + s * p.dw_strides.column] =
        Numeric<T>::store(total);
  }
}

}  // namespace fastconv::depthwise
