// Walking down a column of a plane in shared memory, for filters that are unrolled: a lane has one column of outputs,
// and every source row that it meets is loaded once and multiplied with all tap rows, for the outputs that are not yet
// complete.
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

// Loads kCount neighbours from a row, zeros where they are outside of it. Two at a time from element kPairs on, where
// that is not negative: then these are aligned, and inside or outside together.
template <int kPairs, int kCount, typename T>
__device__ __forceinline__ void load_row(const T* from, const bool (&inside)[kCount], float (&values)[kCount]) {
#pragma unroll
  for (int s = 0; s < kCount; ++s) {
    if (kPairs >= 0 && s % 2 == kPairs && s + 1 < kCount) {
      const auto loaded = ptx::load_vector<2>(from + s);
      values[s] = inside[s] ? Numeric<T>::load(loaded[0]) : 0.0f;
      values[s + 1] = inside[s] ? Numeric<T>::load(loaded[1]) : 0.0f;
    } else if (kPairs < 0 || s % 2 == kPairs || s == 0) {
      const T loaded = from[s];
      values[s] = inside[s] ? Numeric<T>::load(loaded) : 0.0f;
    }
  }
}

template <int kCount>
__device__ __forceinline__ void find_inside(int first, int width, bool (&inside)[kCount]) {
#pragma unroll
  for (int s = 0; s < kCount; ++s) inside[s] = static_cast<unsigned>(first + s) < static_cast<unsigned>(width);
}

// kCount neighbours of one row after another, from source place (row, column) on; those from kFirst to kEnd are known
// to be inside of their rows; kPairs: see load_row.
template <int kCount, int kFirst, int kEnd, int kPairs, typename T>
class RowReader {
 public:
  __device__ __forceinline__ RowReader(const PlaneView<T>& view, const T* zeros, int row, int column)
      : zeros_(zeros + (kPairs > 0 ? kPairs : 0)),
        staged_(view.staged),
        width_(view.width),
        row_(row - view.first_row) {
    find_inside(column, view.width, inside_);
#pragma unroll
    for (int s = kFirst; s < kEnd; ++s) inside_[s] = true;
    from_ = view.rows + row_ * width_ + column;
  }

  // The next row. Where it is not known to exist it may be missing: then it is read from `zeros`, so that no lane takes
  // a branch.
  __device__ __forceinline__ void next(bool is_known, float (&values)[kCount]) {
    const bool exists = is_known || static_cast<unsigned>(row_) < static_cast<unsigned>(staged_);
    load_row<kPairs>(exists ? from_ : zeros_, inside_, values);
    ++row_;
    from_ += width_;
  }

 private:
  const T *from_, *zeros_;
  int staged_, width_, row_;
  bool inside_[kCount];
};

// Whether the steps of centered walks follow each other unrolled, by as many as there are open sums, so that no sum
// moves. Of more products that would leave the nearest instruction caches, and moving costs little beside so many.
FASTCONV_HOST_DEVICE constexpr bool is_walk_unrolled(int rows, int columns, int stride, int lane_columns) {
  return (rows + stride - 1) / stride * rows * columns * lane_columns <= 800;
}

// What the lanes of a warp do in common. Outputs below `count` are a lane's own; lanes that have none walk along.
struct Walk {
  int steps;  // the most of any lane
  int known;  // centered: of these, so many first ones read rows that exist, and are below every lane's count
  int count;
  bool works;  // count > 0
};

// Walks from source place (row, column) of the first output's tap (0, 0) down, and calls emit(whether the output
// exists, whether that and all of its rows are known, sums of the lane's columns) for each step. Sums of the outputs
// that are not yet complete move on from step to step.
//
// Centered: half of the filter is padding, and the sources of the lane's columns themselves exist. Then the known steps
// follow each other unrolled, so that no sum moves, and no bounds are asked for.
template <class Filter, bool centered, typename T, class Emit>
__device__ __forceinline__ void walk_down(const PlaneView<T>& view, const T* zeros, const float* weights, float bias,
                                          int row, int column, const Walk& walk, const Emit& emit) {
  constexpr int kR = Filter::kRows, kS = Filter::kColumns, kU = Filter::kStride, kOpen = (kR + kU - 1) / kU;
  constexpr int kColumns = kLaneColumns<T, Filter>, kWidth = kS + (kColumns - 1) * kU;
  constexpr int kFirst = centered ? kS / 2 : 0, kEnd = centered ? kFirst + (kColumns - 1) * kU + 1 : 0;
  constexpr int kPairs = centered && sizeof(T) == 2 ? kFirst % 2 : -1;
  RowReader<kWidth, kFirst, kEnd, kPairs, T> reader(view, zeros, row, column);
  float sums[kOpen][kColumns];  // of output o at o % kOpen, counted from the first of this turn
  // The rows that the first tap rows of output `newest` read, and other tap rows of the open - 1 outputs before it.
  const auto add_rows = [&](int newest, int open, bool is_known) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums[newest][j] = bias;
#pragma unroll
    for (int e = 0; e < kU; ++e) {
      float values[kWidth];
      reader.next(is_known, values);
#pragma unroll
      for (int k = 0; k < kOpen; ++k) {
        if (k >= open || e + kU * k >= kR) continue;
#pragma unroll
        for (int s = 0; s < kS; ++s) {
#pragma unroll
          for (int j = 0; j < kColumns; ++j) {
            sums[(newest + kOpen - k) % kOpen][j] += values[j * kU + s] * weights[(e + kU * k) * kS + s];
          }
        }
      }
    }
  };
#pragma unroll
  for (int t = 0; t + 1 < kOpen; ++t) add_rows(t, t + 1, false);
  int output = 0;
  if constexpr (centered && is_walk_unrolled(kR, kS, kU, kColumns)) {
#pragma unroll 1
    for (; output + kOpen <= walk.known; output += kOpen) {
#pragma unroll
      for (int turn = 0; turn < kOpen; ++turn) {
        add_rows((turn + kOpen - 1) % kOpen, kOpen, true);
        emit(walk.works, true, sums[turn]);
      }
    }
  }
#pragma unroll 1
  for (; output < walk.steps; ++output) {
    add_rows(kOpen - 1, kOpen, false);
    emit(output < walk.count, false, sums[0]);
#pragma unroll
    for (int k = 0; k + 1 < kOpen; ++k) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) sums[k][j] = sums[k + 1][j];
    }
  }
}

// The same for transposed filters: stride 2, odd sizes and half of them as padding. Output (2 a + i, 2 b + j) takes tap
// (r, s) where i + pad - r and j + pad - s are even, from (a + (i + pad - r) / 2, b + (j + pad - s) / 2): a step makes
// 2 x 2 outputs, sums[2 * i + j], from a window of source places around (a, b). Centered: (a, b) itself exists.
template <class Filter, bool centered, typename T, class Emit>
__device__ __forceinline__ void walk_down_transposed(const PlaneView<T>& view, const T* zeros, const float* weights,
                                                     float bias, int row, int column, const Walk& walk,
                                                     const Emit& emit) {
  constexpr int kR = Filter::kRows, kS = Filter::kColumns;
  constexpr int kAbove = kR / 4, kBelow = (kR + 1) / 4, kLeft = kS / 4, kRight = (kS + 1) / 4;
  constexpr int kHeight = kAbove + kBelow + 1, kWidth = kLeft + kRight + 1;
  constexpr int kFirst = centered ? kLeft : 0, kEnd = centered ? kLeft + 1 : 0;
  RowReader<kWidth, kFirst, kEnd, -1, T> reader(view, zeros, row - kAbove, column - kLeft);
  float window[kHeight][kWidth];  // row y of step t at (t + y) % kHeight, counted from the first of this turn
  const auto make_step = [&](int turn, bool is_known, bool exists) {
    reader.next(is_known, window[(turn + kHeight - 1) % kHeight]);
    float sums[4] = {bias, bias, bias, bias};
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
            sums[2 * i + j] += window[(turn + y + kAbove) % kHeight][x + kLeft] * weights[r * kS + s];
          }
        }
      }
    }
    emit(exists, is_known, sums);
  };
#pragma unroll
  for (int y = 0; y + 1 < kHeight; ++y) reader.next(false, window[y]);
  int step = 0;
  if constexpr (centered) {
#pragma unroll 1
    for (; step + kHeight <= walk.known; step += kHeight) {
#pragma unroll
      for (int turn = 0; turn < kHeight; ++turn) make_step(turn, true, walk.works);
    }
  }
#pragma unroll 1
  for (; step < walk.steps; ++step) {
    make_step(0, false, step < walk.count);
#pragma unroll
    for (int y = 0; y + 1 < kHeight; ++y) {
#pragma unroll
      for (int x = 0; x < kWidth; ++x) window[y][x] = window[y + 1][x];
    }
  }
}

// Of the steps that walks of the same height make from the output rows first_row on, how many read rows above `end`
// only, the end of the source.
template <class Filter>
__device__ __forceinline__ int steps_above(int end, int first_row) {
  constexpr int kR = Filter::kRows, kU = Filter::kStride;
  if constexpr (Filter::kTransposed) return end - (kR + 1) / 4 - first_row / 2;
  constexpr int kOpen = (kR + kU - 1) / kU;
  return (end + kR / 2) / kU - (first_row + kOpen - 1);
}

}  // namespace fastconv::depthwise
