// Max pooling of dense NCHW tensors, any window: forward. As in max_pool_planes.cuh a block copies its piece of x,
// whole planes or a band of rows, into shared memory in 16-byte accesses, computes there, and writes 16 bytes at a
// time.
//
// The winner of a window is the best of its rows' winners, and a row's winner serves all windows that it is a row of.
// With some square windows a thread walks down a strip and keeps the rows' winners in registers
// (max_pool_bands_walk_kernel). Elsewhere they are kept in shared memory, and a window of R x S takes R + S comparisons
// (max_pool_bands_forward_kernel), or with stride 1 about a quarter of them (max_pool_bands_blocks.cuh).
#pragma once

#include "kernels/max_pool.cuh"
#include "kernels/max_pool_best.cuh"
#include "kernels/plane_tile.cuh"
#include "ptx/keep.h"

namespace fastconv {

struct BandPoolParameters {
  const void* input;                             // forward: x [N * C, H, W]; backward: dy [N * C, P, Q]
  void* output;                                  // forward: y [N * C, P, Q]; backward: dx [N * C, H, W]
  uint8_t* offsets;                              // [N * C, P, Q]
  int64_t planes;                                // N * C
  PoolAxis<int32_t> row_axis, column_axis;       // dilation 1 where rows' winners are in registers
  int planes_per_tile;                           // 1 where a plane has several bands
  int band;                                      // rows of the tile: of y; backward: of dx
  int strip;                                     // of these, what a thread walks down
  int patch_columns;                             // backward: what of them a thread has side by side
  FastDivider<uint32_t> bands, strips, columns;  // of a plane, of a tile's plane; what threads have in a row
  FastDivider<uint32_t> column_blocks;           // forward, blocks: fours of a row of y
  int place_multiplier;                          // backward: 2^16 / S rounded down, and one
  int output_at, offsets_at;                     // where these are in shared memory, in bytes; the input is at 0
  int kept_at, kept_places_at;                   // forward: rows' winners; backward: sums
};

// The rows of the input that the windows of the rows [first, first + rows) reach, as [first, end).
__device__ inline int2 reached_rows(const PoolAxis<int32_t>& axis, int first, int rows) {
  const int begin = first * axis.stride - axis.padding;
  const int end = (first + rows - 1) * axis.stride - axis.padding + (axis.window - 1) * axis.dilation + 1;
  const int inside = min(max(begin, 0), axis.inputs);
  return make_int2(inside, max(inside, min(end, axis.inputs)));
}

// What a block of forward reads and writes. Constructing it starts to copy x.
template <typename T>
struct ForwardBand {
  PlaneTile tile;
  PlanePiece x, y;
  int last_row;     // of x that is there
  const T* inputs;  // in shared memory, from the piece's first element
  T* outputs;
  uint8_t* offsets;

  __device__ static PlanePiece piece_of_x(const BandPoolParameters& p, const PlaneTile& tile) {
    int2 rows = reached_rows(p.row_axis, tile.first_row, tile.rows);
    if (p.planes_per_tile > 1) rows = make_int2(0, p.row_axis.inputs);
    return PlanePiece(tile, rows.x, rows.y, p.row_axis.inputs, p.column_axis.inputs);
  }

  __device__ __forceinline__ ForwardBand(const BandPoolParameters& p, unsigned char* shared)
      : tile(plane_tile(p, p.row_axis.outputs)),
        x(piece_of_x(p, tile)),
        y(tile, tile.first_row, tile.first_row + tile.rows, p.row_axis.outputs, p.column_axis.outputs) {
    constexpr int kSize = static_cast<int>(sizeof(T));
    last_row = x.first_row + x.lines - (tile.planes - 1) * p.row_axis.inputs - 1;
    fetch_segment(shared, p.input, x.begin * kSize, x.count * kSize, kPlaneThreads);
    ptx::commit_async_copies();
    inputs = reinterpret_cast<const T*>(shared + segment_lead(x.begin * kSize));
    outputs = reinterpret_cast<T*>(shared + p.output_at + segment_lead(y.begin * kSize));
    offsets = shared + p.offsets_at + segment_lead(y.begin);
  }

  __device__ __forceinline__ void wait() const {
    ptx::wait_async_copies<0>();
    __syncthreads();
  }

  __device__ __forceinline__ void store(const BandPoolParameters& p, const unsigned char* shared) const {
    constexpr int kSize = static_cast<int>(sizeof(T));
    __syncthreads();
    store_segment<T>(p.output, y.begin * kSize, y.count * kSize, shared + p.output_at, kPlaneThreads);
    store_segment<uint8_t>(p.offsets, y.begin, y.count, shared + p.offsets_at, kPlaneThreads);
  }
};

// Of a thread that walks: neighbouring windows, and rows of them at a time. Two windows with stride 1 share all but the
// outermost of what they cover. Lanes of 32-bit elements that step over columns would meet in the same banks.
template <int kStride, typename T>
constexpr int kWalkColumns = kStride == 1 && sizeof(T) == 2 ? 2 : 1;
template <int kStride>
constexpr int kWalkRows = kStride == 1 ? 2 : 1;

// Winners of kCount windows of kWindow parts each, one part apart where there are two. part(i): the winner of part i.
template <int kWindow, int kCount, typename Best, typename Part>
__device__ __forceinline__ void take_windows(Best (&winners)[kCount], const Part& part) {
  Best shared_part = part(1);
#pragma unroll
  for (int i = 2; i < kWindow; ++i) {
    const Best other = part(i);
    take(shared_part, other.value, other.place);
  }
  winners[0] = part(0);
  take(winners[0], shared_part.value, shared_part.place);
  if constexpr (kCount == 2) {
    const Best last = part(kWindow);
    winners[1] = shared_part;
    take(winners[1], last.value, last.place);
  }
}

// A square window, dilation 1. A column or row that is not there is read as the nearest that is, a second time and
// under its place: it is in the window too, and the same element again changes neither value nor place.
template <int kWindow, int kStride, typename T>
__global__ void __launch_bounds__(kPlaneThreads, 8)
    max_pool_bands_walk_kernel(const __grid_constant__ BandPoolParameters p) {
  constexpr int kColumns = kWalkColumns<kStride, T>, kTaps = kWindow + (kColumns - 1) * kStride;
  constexpr int kRows = kWalkRows<kStride>, kStep = kRows * kStride;
  constexpr int kKept = kWindow - kStride, kLines = kKept + kStep;  // of x, under the windows of one turn and the next
  using Best = PoolBest<AccumulatorOf<T>>;
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();
  const ForwardBand<T> band(p, shared);
  band.wait();

  constexpr int kSize = static_cast<int>(sizeof(T));
  const int last_row = band.last_row, width = p.column_axis.inputs, output_width = p.column_axis.outputs;
  for_each_strip(p, band.tile, [&](int plane, int first, int rows, int group) {
    const int q = group * kColumns, first_column = q * kStride - p.column_axis.padding;
    // Bytes of shared memory to row 0 of the plane, which need not be there.
    const int top = static_cast<int>(reinterpret_cast<const unsigned char*>(band.inputs) - shared) +
                    band.x.row(plane, 0, width) * kSize;
    int taps[kTaps], places[kTaps];
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
      const int column = min(max(first_column + t, 0), width - 1);
      taps[t] = ptx::keep(top + column * kSize);
      places[t] = ptx::keep(column - first_column);
    }
    // Places are row * kWindow + column, seen from the turn's first window.
    const auto line_winners = [&](int from, int row, Best(&winners)[kColumns]) {
      const int inside = min(max(row, 0), last_row), begin = (inside - from) * kWindow;
      const unsigned char* line = shared + inside * width * kSize;
      take_windows<kWindow>(winners, [&](int t) {
        return Best{Numeric<T>::load(*reinterpret_cast<const T*>(line + taps[t])), begin + places[t]};
      });
    };

    int row = first * kStride - p.row_axis.padding;
    const int place = band.y.row(plane, first, output_width) + q;
    int output_at = ptx::keep(static_cast<int>(reinterpret_cast<unsigned char*>(band.outputs + place) - shared));
    int offset_at = ptx::keep(static_cast<int>(band.offsets + place - shared));
    const bool has_second = kColumns == 2 && q + 1 < output_width;
    Best lines[kLines][kColumns];
#pragma unroll
    for (int k = 0; k < kKept; ++k) line_winners(row, row + k, lines[k]);
#pragma unroll 2
    for (int i = 0; i < rows; i += kRows, row += kStep) {
#pragma unroll
      for (int k = kKept; k < kLines; ++k) line_winners(row, row + k, lines[k]);
      Best winners[kColumns][kRows];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) take_windows<kWindow>(winners[c], [&](int k) { return lines[k][c]; });
      // The last row first: where it is not there, the one before it follows.
      const int next_row = kRows == 2 && i + 1 < rows ? output_width : 0;
#pragma unroll
      for (int k = kRows - 1; k >= 0; --k) {
        T* values = reinterpret_cast<T*>(shared + output_at + k * next_row * kSize);
        uint8_t* offsets = shared + offset_at + k * next_row;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const Best& best = winners[c][k];
          const int offset = best.place - k * kStride * kWindow - c * kStride;
          if (c > 0 && !has_second) continue;
          values[c] = Numeric<T>::store(best.value);
          offsets[c] = static_cast<uint8_t>(offset);
        }
      }
      output_at += kRows * output_width * kSize;
      offset_at += kRows * output_width;
#pragma unroll
      for (int k = 0; k < kKept; ++k) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          lines[k][c] = {lines[k + kStep][c].value, lines[k + kStep][c].place - kStep * kWindow};
      }
    }
  });
  band.store(p, shared);
}

// Taps of a window that are in the input, as [first, end): none where a dilated window passes it over.
struct TapRange {
  int first, end;
};

__device__ __forceinline__ TapRange taps_inside(const PoolAxis<int32_t>& axis, int start) {
  TapRange range{first_tap(axis, start), axis.window};
  const int room = axis.inputs - 1 - start;  // the window begins in the input or before it
  if ((axis.window - 1) * axis.dilation > room) {
    range.end = static_cast<int>(axis.dilation_divider.divide(static_cast<uint32_t>(room))) + 1;
  }
  return range;
}

// Of rows' winners, and of windows below each other, a thread has these one after the other.
constexpr int kBandRun = 4;

template <typename T>
__global__ void __launch_bounds__(kPlaneThreads, 8)
    max_pool_bands_forward_kernel(const __grid_constant__ BandPoolParameters p) {
  using Best = PoolBest<AccumulatorOf<T>>;
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();
  const ForwardBand<T> band(p, shared);
  T* row_values = reinterpret_cast<T*>(shared + p.kept_at);  // of each line of x and each column of y
  uint8_t* row_places = shared + p.kept_places_at;
  band.wait();

  const int width = p.column_axis.inputs, output_width = p.column_axis.outputs, lines = band.x.lines;
  const auto column_start = [&](int q) { return q * p.column_axis.stride - p.column_axis.padding; };
  const int runs = (lines + kBandRun - 1) / kBandRun * output_width;
#pragma unroll 1
  for (int item = threadIdx.x; item < runs; item += kPlaneThreads) {
    uint32_t q = item;
    const int first_line = static_cast<int>(p.columns.split(q)) * kBandRun;
    const int start = column_start(static_cast<int>(q)), step = p.column_axis.dilation;
    const TapRange taps = taps_inside(p.column_axis, start);
    const T* line = band.inputs + first_line * width + start + taps.first * step;
    int place = first_line * output_width + static_cast<int>(q);
#pragma unroll 1
    for (int i = min(kBandRun, lines - first_line); i > 0; --i, line += width, place += output_width) {
      Best best{lowest_pool_value<AccumulatorOf<T>>(), taps.first};
      const T* next = line;
#pragma unroll 4
      for (int s = taps.first; s < taps.end; ++s, next += step) take(best, Numeric<T>::load(*next), s);
      row_values[place] = Numeric<T>::store(best.value);
      row_places[place] = static_cast<uint8_t>(best.place);
    }
  }
  __syncthreads();

  for_each_strip(p, band.tile, [&](int plane, int first, int rows, int q) {
    const int step = p.row_axis.dilation * output_width, first_s = first_tap(p.column_axis, column_start(q));
    int start = first * p.row_axis.stride - p.row_axis.padding, out = band.y.row(plane, first, output_width) + q;
#pragma unroll 1
    for (int i = 0; i < rows; ++i, start += p.row_axis.stride, out += output_width) {
      const TapRange taps = taps_inside(p.row_axis, start);
      int place = taps.first * p.column_axis.window;
      Best best{lowest_pool_value<AccumulatorOf<T>>(), place + first_s};
      int next = band.x.row(plane, start + taps.first * p.row_axis.dilation, output_width) + q;
#pragma unroll 4
      for (int r = taps.first; r < taps.end; ++r, next += step, place += p.column_axis.window) {
        take(best, Numeric<T>::load(row_values[next]), place + row_places[next]);
      }
      band.outputs[out] = Numeric<T>::store(best.value);
      band.offsets[out] = static_cast<uint8_t>(best.place);
    }
  });
  band.store(p, shared);
}

}  // namespace fastconv
