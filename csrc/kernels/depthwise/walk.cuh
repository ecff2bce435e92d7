// Walking down a column of a plane in shared memory, for filters that are unrolled: a lane has one column of outputs,
// and every source row that it meets is loaded once and multiplied with all tap rows. Sums of the outputs that are not
// yet complete move on from row to row.
#pragma once

#include "kernels/depthwise/flat.cuh"
#include "ptx/device.h"

namespace fastconv::depthwise {

// Fixed filters are unrolled with their weights in registers; taps of 0 are known at run time only.
template <int taps_r, int taps_s, int row_stride, bool is_transposed = false>
struct PlaneFilter {
  static constexpr int kRows = taps_r, kColumns = taps_s, kStride = row_stride, kTaps = taps_r * taps_s;
  static constexpr bool kFixed = taps_r > 0, kTransposed = is_transposed;
  // Outputs of a step: transposed filters have a stride of 2, and steps of 2 x 2.
  static constexpr int kStep = kFixed && kTransposed ? 2 : 1;
};

// Neighbouring columns of a lane: as many as share a word of shared memory, or that a step makes.
template <typename T, class Filter>
constexpr int kLaneColumns = Filter::kTransposed ? 2 : 4 / static_cast<int>(sizeof(T));

// Room before and behind the staged source: lanes read a little over the ends of rows, and do not use it.
constexpr int kPlaneGuard = 32;

// One lane's view of its plane in shared memory.
template <typename T>
struct PlaneView {
  const T* rows;          // the first staged row's first column
  int first_row, staged;  // rows
  int width;

  // Of a row that may be missing, the nearest that there is, and whether it is missing.
  __device__ __forceinline__ const T* row(int row, bool& inside) const {
    const int place = row - first_row;
    inside = static_cast<unsigned>(place) < static_cast<unsigned>(staged);
    return rows + min(max(place, 0), staged - 1) * width;
  }
};

// How the lanes of a warp share walks: groups of `columns` lanes, a group for each strip of `rows` steps.
struct LaneGroups {
  FastDivider<uint32_t> columns;
  int groups, rows;
  FastDivider<uint32_t> strips;  // of a whole plane
};

// Loads kCount neighbours from a row, zeros where they are outside of it.
template <int kCount, typename T>
__device__ __forceinline__ void load_row(const T* from, const bool (&inside)[kCount], float (&values)[kCount]) {
#pragma unroll
  for (int s = 0; s < kCount; ++s) {
    const T loaded = from[s];
    values[s] = inside[s] ? Numeric<T>::load(loaded) : 0.0f;
  }
}

template <int kCount>
__device__ __forceinline__ void find_inside(int first, int width, bool (&inside)[kCount]) {
#pragma unroll
  for (int s = 0; s < kCount; ++s) inside[s] = static_cast<unsigned>(first + s) < static_cast<unsigned>(width);
}

// emit(o, sums of the lane's columns) for outputs 0 .. count - 1 below source place (row, column) of the first output's
// tap (0, 0). All lanes come here and make `steps` steps, the most of any count.
template <class Filter, typename T, class Emit>
__device__ __forceinline__ void walk_down(const PlaneView<T>& view, const float* weights, int row, int column,
                                          int steps, int count, const Emit& emit) {
  constexpr int kR = Filter::kRows, kS = Filter::kColumns, kU = Filter::kStride, kOpen = (kR + kU - 1) / kU;
  constexpr int kColumns = kLaneColumns<T, Filter>, kWidth = kS + (kColumns - 1) * kU;
  bool inside[kWidth];
  find_inside(column, view.width, inside);
  int staged_row = row - view.first_row;
  const T* from = view.rows + staged_row * view.width + column;
  float sums[kOpen][kColumns] = {};  // of output t - k, where t is the step
#pragma unroll 1
  for (int t = 0; t < steps + kOpen - 1; ++t) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int k = kOpen - 1; k > 0; --k) sums[k][j] = sums[k - 1][j];
      sums[0][j] = 0;
    }
#pragma unroll
    for (int e = 0; e < kU; ++e) {
      if (t < count + kOpen - 1 && static_cast<unsigned>(staged_row) < static_cast<unsigned>(view.staged)) {
        float values[kWidth];
        load_row(from, inside, values);
#pragma unroll
        for (int k = 0; k < kOpen; ++k) {
          if (e + kU * k >= kR) continue;
#pragma unroll
          for (int s = 0; s < kS; ++s) {
#pragma unroll
            for (int j = 0; j < kColumns; ++j) sums[k][j] += values[j * kU + s] * weights[(e + kU * k) * kS + s];
          }
        }
      }
      ++staged_row;
      from += view.width;
    }
    const int output = t - (kOpen - 1);
    if (output >= 0 && output < count) emit(output, sums[kOpen - 1]);
  }
}

// The same for transposed filters: stride 2, odd sizes and half of them as padding. Output (2 a + i, 2 b + j) takes tap
// (r, s) where i + pad - r and j + pad - s are even, from (a + (i + pad - r) / 2, b + (j + pad - s) / 2): a step makes
// 2 x 2 outputs from a window of source places around (a, b). emit(step, sums[2 * i + j]).
template <class Filter, typename T, class Emit>
__device__ __forceinline__ void walk_down_transposed(const PlaneView<T>& view, const float* weights, int row,
                                                     int column, int steps, int count, const Emit& emit) {
  constexpr int kR = Filter::kRows, kS = Filter::kColumns;
  constexpr int kAbove = kR / 4, kBelow = (kR + 1) / 4, kLeft = kS / 4, kRight = (kS + 1) / 4;
  constexpr int kHeight = kAbove + kBelow + 1, kWidth = kLeft + kRight + 1;
  bool inside[kWidth];
  find_inside(column - kLeft, view.width, inside);
  int staged_row = row - kAbove - view.first_row;
  const T* from = view.rows + staged_row * view.width + column - kLeft;
  float window[kHeight][kWidth] = {};
#pragma unroll 1
  for (int t = 0; t < steps + kHeight - 1; ++t) {
    __syncwarp();
#pragma unroll
    for (int y = 0; y + 1 < kHeight; ++y) {
#pragma unroll
      for (int x = 0; x < kWidth; ++x) window[y][x] = window[y + 1][x];
    }
#pragma unroll
    for (int x = 0; x < kWidth; ++x) window[kHeight - 1][x] = 0;
    if (t < count + kHeight - 1 && static_cast<unsigned>(staged_row) < static_cast<unsigned>(view.staged)) {
      load_row(from, inside, window[kHeight - 1]);
    }
    ++staged_row;
    from += view.width;
    const int step = t - (kHeight - 1);
    if (step < 0 || step >= count) continue;
    float sums[4] = {};
#pragma unroll
    for (int y = -kAbove; y <= kBelow; ++y) {
#pragma unroll
      for (int x = -kLeft; x <= kRight; ++x) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const int r = i + kR / 2 - 2 * y, s = j + kS / 2 - 2 * x;
            if (r < 0 || r >= kR || s < 0 || s >= kS) continue;
            sums[2 * i + j] += window[y + kAbove][x + kLeft] * weights[r * kS + s];
          }
        }
      }
    }
    emit(step, sums);
  }
}

}  // namespace fastconv::depthwise
