// Max pooling of dense NCHW tensors: 2x2 with stride 2, and 3x3 with stride 2 and padding 1.
//
// Rows of whole planes follow each other without a gap, so what a block reads and what it writes is one contiguous
// piece of each tensor, whatever the width of a row: several planes, or a band of one. A block copies its piece into
// shared memory in 16-byte accesses, computes there, and writes 16 bytes at a time. Global memory sees every byte once,
// and the row that neighbouring bands share twice.
//
// Forward: a thread has one output column and walks down a strip of rows. The winner of a row of three, found once,
// serves the window that ends there and the one that begins. Backward: a thread has two columns of dx and walks down
// pairs of rows; the gradients and places of the windows over them are read once and passed on in registers. Every sum
// is in the order of the windows.
#pragma once

#include "common/fast_division.h"
#include "kernels/max_pool_best.cuh"
#include "kernels/plane_tile.cuh"

namespace fastconv {

struct PlanePoolParameters {
  const void* input;                               // forward: x [N * C, H, W]; backward: dy [N * C, P, Q]
  void* output;                                    // forward: y [N * C, P, Q]; backward: dx [N * C, H, W]
  uint8_t* offsets;                                // [N * C, P, Q]
  int64_t planes;                                  // N * C
  int height, width, output_height, output_width;  // H, W, P, Q
  int planes_per_tile;                             // 1 where a plane has several bands
  int band;                                        // output rows of a tile; backward: pairs of input rows
  int strip;                                       // of these, what a thread walks down
  FastDivider<uint32_t> bands, strips, columns;    // of a plane, of a tile's plane, of a row
  int output_at, offsets_at;                       // where these are in shared memory, in bytes; the input is at 0
};

// The columns of a thread's window. One that is not there is read as the nearest that is, a second time and under its
// place: the same element again changes neither value nor place, and no row has to ask what is there.
//
// kPairs: W is even and column 2q exists, so that columns 2q and 2q + 1 are one aligned access.
template <int kWindow, bool kPairs>
struct WindowColumns {
  int middle, left, right;  // column 2q of the row; the others seen from there
  int left_place, middle_place, right_place;

  __device__ __forceinline__ WindowColumns(int q, int width) {
    constexpr int kMiddle = kWindowPadding<kWindow>;
    middle = kPairs ? 2 * q : min(2 * q, width - 1);
    left = max(2 * q - 1, 0) - middle;
    right = kPairs ? 1 : min(2 * q + 1, width - 1) - middle;
    left_place = q > 0 ? 0 : 1;
    middle_place = kPairs || 2 * q < width ? kMiddle : 0;
    right_place = kPairs || right > 0 ? kMiddle + 1 : middle_place;
  }

  // The winner of a window's row. row: its column `middle`. The place is s.
  template <typename T>
  __device__ __forceinline__ PoolBest<AccumulatorOf<T>> best(const T* row) const {
    using Value = AccumulatorOf<T>;
    Value values[2];
    if constexpr (kPairs) {
      const auto pair = ptx::load_vector<2>(row);
      values[0] = Numeric<T>::load(pair[0]);
      values[1] = Numeric<T>::load(pair[1]);
    } else {
      values[0] = Numeric<T>::load(row[0]);
      values[1] = Numeric<T>::load(row[right]);
    }
    PoolBest<Value> best{values[0], middle_place};
    if constexpr (kWindow == 3) {
      if constexpr (kPairs && sizeof(T) == 4) {
        // A pair for the sake of one: lanes that read every other word would meet in the same banks.
        best = {left < 0 ? Numeric<T>::load(ptx::load_vector<2>(row - 2)[1]) : values[0], left_place};
      } else {
        best = {Numeric<T>::load(row[left]), left_place};
      }
      take(best, values[0], middle_place);
    }
    take(best, values[1], right_place);
    return best;
  }
};

template <int kWindow, bool kPairs, typename T>
__global__ void __launch_bounds__(kPlaneThreads, 8)
    max_pool_planes_forward_kernel(const __grid_constant__ PlanePoolParameters p) {
  constexpr int kPadding = kWindowPadding<kWindow>;
  using Value = AccumulatorOf<T>;
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();

  const PlaneTile tile = plane_tile(p, p.output_height);
  const bool is_whole = p.planes_per_tile > 1;
  const int last_row = is_whole ? p.height : min(p.height, 2 * (tile.first_row + tile.rows - 1) - kPadding + kWindow);
  const PlanePiece x(tile, max(0, 2 * tile.first_row - kPadding), last_row, p.height, p.width);
  fetch_segment(shared, p.input, x.begin * static_cast<int>(sizeof(T)), x.count * static_cast<int>(sizeof(T)),
                kPlaneThreads);
  ptx::commit_async_copies();

  const PlanePiece y(tile, tile.first_row, tile.first_row + tile.rows, p.output_height, p.output_width);
  const int64_t y_begin = y.begin * static_cast<int>(sizeof(T));
  const T* inputs = reinterpret_cast<const T*>(shared + segment_lead(x.begin * static_cast<int>(sizeof(T))));
  T* outputs = reinterpret_cast<T*>(shared + p.output_at + segment_lead(y_begin));
  uint8_t* offsets = shared + p.offsets_at + segment_lead(y.begin);
  ptx::wait_async_copies<0>();
  __syncthreads();

  for_each_strip(p, tile, [&](int plane, int first, int rows, int q) {
    const WindowColumns<kWindow, kPairs> columns(q, p.width);
    const T* next = inputs + x.row(plane, 2 * first, p.width) + columns.middle;  // in the row 2 * row
    PoolBest<Value> above{lowest_pool_value<Value>(), q > 0 ? 3 : 4};            // of a window without its first row
    if (kWindow == 3 && first > 0) above = columns.best(next - p.width);
    int place = y.row(plane, first, p.output_width) + q;
    const auto step = [&](bool has_middle, bool has_below) {
      PoolBest<Value> best = above;
      if constexpr (kWindow == 3) {
        if (has_middle) {
          const PoolBest<Value> middle = columns.best(next);
          take(best, middle.value, middle.place + 3);
        }
      } else {
        best = columns.best(next);
      }
      if (has_below) {
        above = columns.best(next + p.width);
        take(best, above.value, above.place + kWindow * (kWindow - 1));
      }
      outputs[place] = Numeric<T>::store(best.value);
      offsets[place] = static_cast<uint8_t>(best.place);
      place += p.output_width;
      next += 2 * p.width;
    };
    const int whole = min(first + rows, p.height / 2);
    int row = first;
#pragma unroll 1
    for (; row < whole; ++row) step(true, true);
    if (row < first + rows) step(2 * row < p.height, false);  // the image ends in the window
  });
  __syncthreads();

  store_segment<T>(p.output, y_begin, y.count * static_cast<int>(sizeof(T)), shared + p.output_at, kPlaneThreads);
  store_segment<uint8_t>(p.offsets, y.begin, y.count, shared + p.offsets_at, kPlaneThreads);
}

template <int kWindow, bool kPairs, typename T>
__global__ void __launch_bounds__(kPlaneThreads, 8)
    max_pool_planes_backward_kernel(const __grid_constant__ PlanePoolParameters p) {
  using Value = AccumulatorOf<T>;
  using Winner = PoolWinner<Value>;
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();

  // Pair i of dx's rows, 2i and 2i + 1, lies under the windows of row i, and for 3x3 of row i + 1.
  const PlaneTile tile = plane_tile(p, (p.height + 1) / 2);
  const bool is_whole = p.planes_per_tile > 1;
  const int first_window = min(tile.first_row, p.output_height);
  const int end_window =
      is_whole ? p.output_height : min(p.output_height, tile.first_row + tile.rows + kWindowPadding<kWindow>);
  const PlanePiece dy(tile, first_window, end_window, p.output_height, p.output_width);
  const int64_t dy_begin = dy.begin * static_cast<int>(sizeof(T));
  fetch_segment(shared, p.input, dy_begin, dy.count * static_cast<int>(sizeof(T)), kPlaneThreads);
  fetch_segment(shared + p.offsets_at, p.offsets, dy.begin, dy.count, kPlaneThreads);
  ptx::commit_async_copies();

  const PlanePiece dx(tile, 2 * tile.first_row, min(p.height, 2 * (tile.first_row + tile.rows)), p.height, p.width);
  const int64_t dx_begin = dx.begin * static_cast<int>(sizeof(T));
  const T* gradients = reinterpret_cast<const T*>(shared + segment_lead(dy_begin));
  const uint8_t* places = shared + p.offsets_at + segment_lead(dy.begin);
  T* outputs = reinterpret_cast<T*>(shared + p.output_at + segment_lead(dx_begin));
  ptx::wait_async_copies<0>();
  __syncthreads();

  for_each_strip(p, tile, [&](int plane, int first, int rows, int column) {
    // Of 2x2, the windows below a strip are none of its own, and may not be in shared memory.
    const int end_row = kWindow == 3 ? p.output_height : min(p.output_height, first + rows);
    const auto winner_at = [&](int row, int q) {
      if (row >= end_row || q >= p.output_width) return Winner{Value{0}, kNoWinner};
      const int place = dy.row(plane, row, p.output_width) + q;
      return Winner{Numeric<T>::load(gradients[place]), places[place]};
    };
    const Winner none{Value{0}, kNoWinner};
    Winner here = winner_at(first, column), right = kWindow == 3 ? winner_at(first, column + 1) : none;
    int place = dx.row(plane, 2 * first, p.width) + 2 * column;
    const bool has_second_column = 2 * column + 1 < p.width;
#pragma unroll 1
    for (int row = first; row < first + rows; ++row, place += 2 * p.width) {
      Value upper[2], lower[2];
      const Winner below = winner_at(row + 1, column);
      const Winner below_right = kWindow == 3 ? winner_at(row + 1, column + 1) : none;
      gather_gradients<kWindow>(upper, lower, here, right, below, below_right);
      const auto write = [&](int at, const Value(&values)[2]) {
        const ptx::Vector<T, 2> pair{{Numeric<T>::store(values[0]), Numeric<T>::store(values[1])}};
        if constexpr (kPairs) {
          ptx::store_vector(outputs + at, pair);
        } else {
          outputs[at] = pair[0];
          if (has_second_column) outputs[at + 1] = pair[1];
        }
      };
      write(place, upper);
      if (2 * row + 1 < p.height) write(place + p.width, lower);
      here = below;
      right = below_right;
    }
  });
  __syncthreads();

  store_segment<T>(p.output, dx_begin, dx.count * static_cast<int>(sizeof(T)), shared + p.output_at, kPlaneThreads);
}

}  // namespace fastconv
