// Max pooling of dense NCHW tensors, any window: backward. A block copies dy and the offsets of the windows over its
// piece of dx into shared memory and adds dy to its sums there; each element of a piece belongs to one thread, which
// has a patch of columns and rows. A thread walks through the windows over its patch in order and takes those whose
// winner is its own: as many windows as there are, and those that reach in from beside the patch, instead of R x S for
// each element of dx. Every sum is in the order of the windows, and no two threads add to the same one.
#pragma once

#include "kernels/max_pool_bands.cuh"

namespace fastconv {

// The windows over the positions [first, first + count), as [first, end).
__device__ __forceinline__ int2 windows_over_range(const PoolAxis<int32_t>& axis, int first, int count) {
  const int reach = first + axis.padding, before = reach - (axis.window - 1) * axis.dilation;
  const auto divide = [&](int position) {
    return static_cast<int>(axis.stride_divider.divide(static_cast<uint32_t>(position)));
  };
  const int begin = before <= 0 ? 0 : min(divide(before + axis.stride - 1), axis.outputs);
  return make_int2(begin, max(begin, min(divide(reach + count - 1) + 1, axis.outputs)));
}

// place / S, exact for both from 0 to 255: the multiplier is 2^16 / S rounded down, and one.
__device__ __forceinline__ int divide_place(int place, int multiplier) {
  return (place * multiplier) >> 16;
}

template <typename T>
__global__ void __launch_bounds__(kPlaneThreads, 8)
    max_pool_bands_backward_kernel(const __grid_constant__ BandPoolParameters p) {
  using Value = AccumulatorOf<T>;
  constexpr int kSize = static_cast<int>(sizeof(T)), kVector = 16 / static_cast<int>(sizeof(Value));
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();
  const int height = p.row_axis.inputs, width = p.column_axis.inputs, output_width = p.column_axis.outputs;

  const PlaneTile tile = plane_tile(p, height);
  const PlanePiece dx(tile, tile.first_row, tile.first_row + tile.rows, height, width);
  int2 window_rows = windows_over_range(p.row_axis, tile.first_row, tile.rows);
  if (p.planes_per_tile > 1) window_rows = make_int2(0, p.row_axis.outputs);
  const PlanePiece dy(tile, window_rows.x, window_rows.y, p.row_axis.outputs, output_width);
  fetch_segment(shared, p.input, dy.begin * kSize, dy.count * kSize, kPlaneThreads);
  fetch_segment(shared + p.offsets_at, p.offsets, dy.begin, dy.count, kPlaneThreads);
  ptx::commit_async_copies();

  // Sums lie as far into 16 bytes of T as the elements of dx do; before them is one of each thread for what is not its
  // own.
  const int lead = segment_lead(dx.begin * kSize) / kSize, sum_count = kPlaneThreads + lead + dx.count;
  Value* sums = reinterpret_cast<Value*>(shared + p.kept_at);
  ptx::Vector<Value, kVector> zeros;
#pragma unroll
  for (int e = 0; e < kVector; ++e) zeros[e] = Value{0};
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x) * kVector; i < sum_count; i += kPlaneThreads * kVector) {
    ptx::store_vector(sums + i, zeros);
  }
  const T* gradients = reinterpret_cast<const T*>(shared + segment_lead(dy.begin * kSize));
  const uint8_t* places = shared + p.offsets_at + segment_lead(dy.begin);
  ptx::wait_async_copies<0>();
  __syncthreads();

  for_each_strip(p, tile, [&](int plane, int first, int rows, int group) {
    const int first_column = group * p.patch_columns, columns = min(p.patch_columns, width - first_column);
    const int2 over_rows = windows_over_range(p.row_axis, first, rows);
    const int2 over_columns = windows_over_range(p.column_axis, first_column, columns);
    const int patch = ptx::keep(kPlaneThreads + lead + dx.row(plane, first, width) + first_column);
    // Where a window begins, seen from the patch.
    int row = over_rows.x * p.row_axis.stride - p.row_axis.padding - first;
    const int left = over_columns.x * p.column_axis.stride - p.column_axis.padding - first_column;
    const int window_count = over_columns.y - over_columns.x, minus_columns = ptx::keep(-p.column_axis.window);
#pragma unroll 1
    for (int window_row = over_rows.x; window_row < over_rows.y; ++window_row, row += p.row_axis.stride) {
      const int line = dy.row(plane, window_row, output_width) + over_columns.x;
      int column = left;
#pragma unroll 4
      for (int i = 0; i < window_count; ++i, column += p.column_axis.stride) {
        const int place = places[line + i];
        const int r = divide_place(place, p.place_multiplier), s = place + r * minus_columns;
        const int h = row + r * p.row_axis.dilation, w = column + s * p.column_axis.dilation;
        const bool is_own = is_inside(h, rows) && is_inside(w, columns);
        sums[is_own ? patch + h * width + w : static_cast<int>(threadIdx.x)] += Numeric<T>::load(gradients[line + i]);
      }
    }
  });
  __syncthreads();

  T* outputs = reinterpret_cast<T*>(shared + p.output_at);  // where dy and the offsets were, or the sums
  if constexpr (sizeof(T) < sizeof(Value)) {
#pragma unroll 4
    for (int i = 2 * static_cast<int>(threadIdx.x); i < lead + dx.count; i += 2 * kPlaneThreads) {
      const auto pair = ptx::load_vector<2>(sums + kPlaneThreads + i);
      ptx::store_vector(outputs + i, ptx::Vector<T, 2>{{Numeric<T>::store(pair[0]), Numeric<T>::store(pair[1])}});
    }
    __syncthreads();
  }
  store_segment<T>(p.output, dx.begin * kSize, dx.count * kSize, outputs, kPlaneThreads);
}

}  // namespace fastconv
