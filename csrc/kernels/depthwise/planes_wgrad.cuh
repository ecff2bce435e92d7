// Depthwise wgrad, W innermost: dw[k, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, k, p u + r dilation - pad, ...].
//
// A block has one filter and a part of the images. Its warps take pieces in turn, rows of one image or several small
// images, copy x and dy as they lie to shared memory, and walk over dy with the sums of all taps in registers: each is
// read from global memory once. Larger filters have their taps
// spread over blocks: pieces of 8 x 2 taps, which are walked down like a filter, or, where the filter steps or dilates,
// kTapsOfWarp of a row.
// Lanes' sums are added in a tree, warps' in order, and blocks' (splits) by split_sum.cuh.
#pragma once

#include "kernels/depthwise/planes.cuh"
#include "kernels/depthwise/wgrad_pieces.cuh"

namespace fastconv::depthwise {

constexpr int kTapsOfWarp = 16;

// Adds to `sums` what the gradients 0 .. count - 1 of the lane's columns, of which `columns` exist, have with x, down
// from source place (row, column) of the first one's tap (0, 0). All lanes come here and make `steps` steps, the most
// of any count.
template <class Filter, typename T>
__device__ __forceinline__ void walk_gradients(const PlaneView<T>& view, const T* gradients, int pitch, int columns,
                                               int row, int column, int steps, int count, float (&sums)[Filter::kTaps],
                                               float& bias) {
  constexpr int kR = Filter::kRows, kS = Filter::kColumns, kU = Filter::kStride, kOpen = (kR + kU - 1) / kU;
  constexpr int kColumns = kLaneColumns<T, Filter>, kWidth = kS + (kColumns - 1) * kU;
  // Which columns are inside, by a mask: of comparisons, the compiler makes them again for every row.
  const int outside = min(max(-column, 0), kWidth), end = min(max(view.width - column, 0), kWidth);
  const uint32_t mask = (1u << end) - (1u << outside);
  bool inside[kWidth];
#pragma unroll
  for (int s = 0; s < kWidth; ++s) inside[s] = (mask >> s & 1) != 0;
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

  const WgradShare share(p);
  uint32_t first_tap = share.tap_group;
  const int tap_row = p.groups_of_row.split(first_tap) * (Filter::kFixed ? Filter::kRows : 1);
  first_tap *= Filter::kFixed ? Filter::kColumns : kTapsOfWarp;
  const int row_shift = tap_row * p.rows.dilation - p.rows.offset;
  const int column_shift = static_cast<int>(first_tap) * p.columns.dilation - p.columns.offset;

  uint32_t lane_column = lane;
  const int lane_group = p.lanes.columns.split(lane_column);
  float sums[kTaps] = {}, bias = 0;
  const int width = p.columns.source;
  const bool whole = p.images_of_piece > 1;
#pragma unroll 1
  for (int piece = share.first_piece + warp; piece < share.end_piece; piece += kPlaneWarps) {
    const WgradPiece<T> here(p, share, piece);
    here.template stage<Filter::kFixed>(p, staged_x, staged_dy);

    const int rows = here.end_row - here.first_row, columns = p.columns.output;
    if constexpr (Filter::kFixed) {
      const int strips = (rows + p.lanes.rows - 1) / p.lanes.rows, groups = here.images * strips;
#pragma unroll 1
      for (int first_group = 0; first_group < groups; first_group += p.lanes.groups) {
        const bool works = lane_group < p.lanes.groups && first_group + lane_group < groups;
        uint32_t walk = works ? first_group + lane_group : 0;
        const uint32_t image = whole ? p.lanes.strips.split(walk) : 0;
        const int row = static_cast<int>(walk) * p.lanes.rows;  // of the piece
        const PlaneView<T> view = here.view(p, staged_x, image);
        const T* gradients = here.gradients(p, staged_dy, image) + row * columns;
#pragma unroll 1
        for (int first = 0; first < columns; first += static_cast<int>(p.lanes.columns.divisor()) * kColumns) {
          const int q = first + static_cast<int>(lane_column) * kColumns;
          const int steps = works && q < columns ? min(p.lanes.rows, rows - row) : 0;
          walk_gradients<Filter>(view, gradients + q, columns, columns - q,
                                 (here.first_row + row) * Filter::kStride + row_shift,
                                 q * Filter::kStride + column_shift, p.lanes.rows, steps, sums, bias);
        }
      }
    } else {
      const int items = here.images * rows * columns;
#pragma unroll 1
      for (int item = lane; item < items; item += kWarp) {
        uint32_t q = item;
        uint32_t row = p.output_columns.split(q);
        const uint32_t image = whole ? p.output_rows.split(row) : 0;
        const float gradient = Numeric<T>::load(here.gradients(p, staged_dy, image)[row * columns + q]);
        bias += gradient;
        const PlaneView<T> view = here.view(p, staged_x, image);
        bool row_inside;
        const T* from = view.row((here.first_row + static_cast<int>(row)) * p.rows.stride + row_shift, row_inside);
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
  float total = 0, bias_total = 0;
#pragma unroll
  for (int w = 0; w < kPlaneWarps; ++w) {
    const float* own_totals = totals + w * (kTaps + 1);
    total += own_totals[min(i, kTaps)];
    bias_total += own_totals[kTaps];
  }
  if (i == kTaps) share.write_bias<T>(p, total);
  constexpr int kColumnsOfGroup = Filter::kFixed ? Filter::kColumns : kTapsOfWarp;
  const int r = tap_row + i / kColumnsOfGroup, s = static_cast<int>(first_tap) + i % kColumnsOfGroup;
  const bool exists = i < kTaps && r < p.rows.taps && s < p.columns.taps;
  // Rows of padding were passed over, so no tap is certain where dy, whose sum this is, is not finite.
  total = share.checked_tap<T>(p, r, s, total, !exists || (is_finite(total) && is_finite(bias_total)));
  if (exists) share.write_tap<T>(p, r, s, total);
}

}  // namespace fastconv::depthwise
