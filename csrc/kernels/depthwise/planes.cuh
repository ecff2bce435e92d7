// Depthwise fprop and dgrad, W innermost, any plane size and alignment.
//
// A warp works alone: it copies a piece of the source, whole planes or rows of one, to its part of shared memory as it
// lies in memory, computes, leaves its outputs in shared memory as they will lie in memory, and stores those. Lanes
// take neighbouring columns, so that rows may begin anywhere. For filters that are unrolled they walk down (walk.cuh);
// rows of fewer than 32 columns leave room for several groups of lanes, which the host places so that no two lanes want
// different words of one bank. Other filters are summed output by output.
#pragma once

#include "kernels/depthwise/epilogue.cuh"
#include "kernels/depthwise/flat.cuh"
#include "kernels/depthwise/not_finite.cuh"
#include "kernels/depthwise/walk.cuh"

namespace fastconv::depthwise {

struct PlanesParameters {
  const void* source;      // fprop: x [N, C, H, W]; dgrad: dy [N, K, P, Q]
  const void* source_end;  // behind its last element
  const void* weights;     // [K, 1, R, S]
  const void* bias;        // [output planes of an image], or null
  const void* residual;    // as output, or null
  const void* residual_end;
  void* output;
  Plane source_strides, output_strides, residual_strides;
  Weights weight_strides;
  Axis rows, columns;
  bool transposed, reversed;                          // see geometry.h
  bool centered;                                      // see walk.cuh; a lane's columns all exist
  FastDivider<uint32_t> multiplier;                   // output planes of a source plane
  bool tall;                                          // kTall rows of outputs at a time; filters that are not unrolled
  FastDivider<uint32_t> output_columns, output_rows;  // of a plane; of tall ones, groups of rows
  LaneGroups lanes;                                   // for filters that are unrolled
  PlaneTiling tiling;
  Activation activation;
  int weight_pitch;                            // floats of a plane's weights and bias in shared memory
  int source_place, output_place, warp_bytes;  // in a warp's shared memory, which begins with the weights
};

// The sum of one output by the definition.
template <typename T, bool transposed>
__device__ __forceinline__ float correlate(const PlaneView<T>& view, const PlanesParameters& p, const float* weights,
                                           int row, int column) {
  float sum = 0;
#pragma unroll 1
  for (int r = 0; r < p.rows.taps; ++r) {
    bool row_inside;
    int source_row = row * p.rows.stride - p.rows.offset + r * p.rows.dilation;
    if constexpr (transposed) {
      const int place = row + p.rows.offset - r * p.rows.dilation;
      uint32_t rest = max(place, 0);
      source_row = p.rows.strides.split(rest);
      if (place < 0 || rest != 0) continue;
    }
    const T* from = view.row(source_row, row_inside);
    if (transposed && !row_inside) continue;
    int source_column = column * p.columns.stride - p.columns.offset;
    int place = column + p.columns.offset;
    const float* tap = weights + r * p.columns.taps;
#pragma unroll 4
    for (int s = 0; s < p.columns.taps; ++s) {
      bool inside = static_cast<unsigned>(source_column) < static_cast<unsigned>(view.width);
      if constexpr (transposed) {
        uint32_t rest = max(place, 0);
        source_column = p.columns.strides.split(rest);
        inside = place >= 0 && rest == 0 && source_column < view.width;
        place -= p.columns.dilation;
      } else {
        inside = inside && row_inside;
      }
      const T loaded = from[inside ? source_column : 0];
      sum += (inside ? Numeric<T>::load(loaded) : 0.0f) * tap[s];
      source_column += p.columns.dilation;
    }
  }
  return sum;
}

// The sums of kTall outputs of a column, for filters of at least as many rows whose rows neither step nor dilate. For
// each tap column a lane walks down: eight source rows meet eight outputs with the weights of two times eight tap rows.
constexpr int kTall = 8;

template <typename T>
__device__ __forceinline__ void correlate_tall(const PlaneView<T>& view, const PlanesParameters& p,
                                               const float* weights, int row, int column, float (&sums)[kTall]) {
  const int taps = p.rows.taps;
#pragma unroll 1
  for (int s = 0; s < p.columns.taps; ++s) {
    const int source_column = column * p.columns.stride - p.columns.offset + s * p.columns.dilation;
    const bool column_inside = static_cast<unsigned>(source_column) < static_cast<unsigned>(view.width);
    const int shift = column_inside ? source_column : 0;
    float last[kTall] = {};  // weights of the tap rows before `first`
#pragma unroll 1
    for (int first = 0; first < taps + kTall - 1; first += kTall) {
      float values[kTall], next[kTall];
#pragma unroll
      for (int j = 0; j < kTall; ++j) {
        bool inside;
        const T loaded = view.row(row - p.rows.offset + first + j, inside)[shift];
        values[j] = inside && column_inside ? Numeric<T>::load(loaded) : 0.0f;
        next[j] = weights[min(first + j, taps - 1) * p.columns.taps + s];
      }
      const bool all = first >= kTall && first + kTall <= taps;
#pragma unroll
      for (int j = 0; j < kTall; ++j) {
#pragma unroll
        for (int o = 0; o < kTall; ++o) {
          const int r = first + j - o;
          if (all || (r >= 0 && r < taps))
            sums[o] += values[j] * (j >= o ? next[j >= o ? j - o : 0] : last[j < o ? kTall + j - o : 0]);
        }
      }
#pragma unroll
      for (int j = 0; j < kTall; ++j) last[j] = next[j];
    }
  }
}

// Sums to their outputs as they are: rows of `columns` neighbours in one aligned place, rows `pitch` apart, as many as
// exist.
template <typename T, int columns, int count>
__device__ __forceinline__ void round_outputs(T* outputs, int pitch, int rows_left, const float (&sums)[count]) {
#pragma unroll
  for (int i = 0; i < count; i += columns) {
    if (i / columns >= rows_left) continue;
    T* place = outputs + i / columns * pitch;
    if constexpr (columns == 1) {
      *place = Numeric<T>::store(sums[i]);
    } else if constexpr (sizeof(T) == 2) {
      ptx::store_vector(place, ptx::to_pair<T>(sums[i], sums[i + 1]));
    } else {
      ptx::store_vector(place, ptx::Vector<T, 2>{{sums[i], sums[i + 1]}});
    }
  }
}

// Sums to their outputs with the residual, which may lie there, and any activation; as many of each as exist.
template <typename T, int columns, int count>
__device__ __forceinline__ void finish_outputs(T* outputs, int pitch, int rows_left, int columns_left,
                                               const float (&sums)[count], bool has_residual,
                                               const PlanesParameters& p) {
  float values[count];
  bool exists[count];
#pragma unroll
  for (int i = 0; i < count; ++i) {
    exists[i] = i / columns < rows_left && i % columns < columns_left;
    values[i] = sums[i];
  }
  if (has_residual) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (exists[i]) values[i] += Numeric<T>::load(outputs[i / columns * pitch + i % columns]);
    }
  }
  activate_all(p.activation, values);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    if (exists[i]) outputs[i / columns * pitch + i % columns] = Numeric<T>::store(values[i]);
  }
}

// Gradients whose weights are not all finite, see not_finite.cuh: the terms of such weights come to where the outputs
// will be, as a residual, which they can be exactly, being infinities and NaN. In shared memory zeros take their place.
template <typename T>
__device__ __forceinline__ void set_apart_not_finite(T* outputs, float* weights, const PlaneView<T>& first_plane,
                                                     const PlanesParameters& p, int planes, int first_row, int rows) {
  const int columns = p.columns.output, taps = p.rows.taps * p.columns.taps, lane = threadIdx.x % kWarp;
#pragma unroll 1
  for (int item = lane; item < planes * rows * columns; item += kWarp) {
    const int plane = item / (rows * columns), place = item - plane * rows * columns;
    const float* own = weights + plane * p.weight_pitch;
    const T* source = first_plane.rows + plane * p.rows.source * first_plane.width;
    const float sum = sum_of_terms(p.rows, p.columns, p.transposed, first_row + place / columns, place % columns,
                                   [&](int r, int s, int y, int x) {
                                     const float weight = own[r * p.columns.taps + s];
                                     if (is_finite(weight)) return 0.0f;
                                     const int row = y - first_plane.first_row;
                                     return Numeric<T>::load(source[row * first_plane.width + x]) * weight;
                                   });
    outputs[item] = Numeric<T>::store(sum);
  }
  __syncwarp();
#pragma unroll 1
  for (int i = lane; i < planes * p.weight_pitch; i += kWarp) {
    if (i % p.weight_pitch < taps && !is_finite(weights[i])) weights[i] = 0;
  }
  __syncwarp();
}

// The residual comes to where the outputs will be.
template <typename T>
__device__ __forceinline__ void stage_residual(T* outputs, const PlanesParameters& p, int64_t n, uint32_t channel,
                                               int row, int count, int output_lead) {
  if (p.residual == nullptr) return;
  const T* residual = static_cast<const T*>(p.residual) + n * p.residual_strides.batch +
                      channel * p.residual_strides.channel + row * p.columns.output;
  if (misalignment(residual) == output_lead) {
    stage_flat(outputs, residual, count, static_cast<const T*>(p.residual), static_cast<const T*>(p.residual_end));
  } else {
    for (int i = threadIdx.x % kWarp; i < count; i += kWarp) outputs[output_lead + i] = residual[i];
  }
}

template <typename T, class Filter>
__global__ void __launch_bounds__(kPlaneThreads, Filter::kRows > 7 ? 2 : 4)
    planes_kernel(const __grid_constant__ PlanesParameters p) {
  constexpr int kTaps = Filter::kTaps, kHeld = Filter::kFixed ? (kTaps + 4) / 4 * 4 : 4;
  constexpr int kStep = Filter::kStep, kColumns = kLaneColumns<T, Filter>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  unsigned char* own = ptx::dynamic_shared_memory<unsigned char>() + warp * p.warp_bytes;
  float* staged_weights = reinterpret_cast<float*>(own);
  T* staged = reinterpret_cast<T*>(own + p.source_place) + kPlaneGuard;
  T* outputs = reinterpret_cast<T*>(own + p.output_place);

  uint32_t strip = blockIdx.x * kPlaneWarps + warp;
  const int64_t first_plane = static_cast<int64_t>(p.tiling.strips.split(strip)) * p.tiling.planes_of_tile;
  if (first_plane >= p.tiling.planes) return;
  const int planes = static_cast<int>(min(p.tiling.planes - first_plane, int64_t{p.tiling.planes_of_tile}));
  uint32_t first_channel = static_cast<uint32_t>(first_plane);
  const int64_t n = p.tiling.channels.split(first_channel);
  const int first_row = static_cast<int>(strip) * p.tiling.strip_rows;
  const int end_row = min(first_row + p.tiling.strip_rows, p.rows.output);
  const bool whole = p.tiling.planes_of_tile > 1;

  // Load: source, residual, weights.
  RowRange range(p.rows, p.transposed, first_row, end_row);
  if (whole) range.first = 0, range.end = p.rows.source;
  const int width = p.columns.source, plane_elements = p.rows.source * width;
  const T* source = static_cast<const T*>(p.source) + n * p.source_strides.batch +
                    static_cast<int64_t>(p.multiplier.divide(first_channel)) * p.source_strides.channel +
                    range.first * width;
  const int source_count = whole ? planes * plane_elements : (range.end - range.first) * width;
  stage_flat(staged, source, source_count, static_cast<const T*>(p.source), static_cast<const T*>(p.source_end));
  const int lead = misalignment(source);
  if constexpr (Filter::kFixed) {
    // What rows are read over has to be something.
    if (lane < kPlaneGuard) {
      staged[lane - kPlaneGuard] = T{};
      staged[(lead + source_count + kChunk<T> - 1) / kChunk<T> * kChunk<T> + lane] = T{};
    }
  }
  const int output_plane = p.rows.output * p.columns.output;
  T* output = static_cast<T*>(p.output) + n * p.output_strides.batch + first_channel * p.output_strides.channel +
              first_row * p.columns.output;
  const int output_count = whole ? planes * output_plane : (end_row - first_row) * p.columns.output;
  const int output_lead = misalignment(output);
  stage_residual<T>(outputs, p, n, first_channel, first_row, output_count, output_lead);
  ptx::commit_async_copies();
  const int taps = p.rows.taps * p.columns.taps;
  bool finite = true;
  for (int i = lane; i < planes * p.weight_pitch; i += kWarp) {
    const int plane = i / p.weight_pitch, tap = i - plane * p.weight_pitch;
    uint32_t channel = first_channel + plane;
    p.tiling.channels.split(channel);
    float value = 0;
    if (tap == taps) {
      if (p.bias != nullptr) value = Numeric<T>::load(static_cast<const T*>(p.bias)[channel]);
    } else if (tap < taps) {
      const int source_tap = p.reversed ? taps - 1 - tap : tap;
      const int r = source_tap / p.columns.taps, s = source_tap - r * p.columns.taps;
      value = Numeric<T>::load(static_cast<const T*>(
          p.weights)[channel * p.weight_strides.filter + r * p.weight_strides.row + s * p.weight_strides.column]);
      finite = finite && is_finite(value);
    }
    staged_weights[i] = value;
  }
  ptx::wait_async_copies<0>();
  __syncwarp();

  // Compute.
  const int rows = end_row - first_row, staged_rows = range.end - range.first, columns = p.columns.output;
  bool has_residual = p.residual != nullptr;  // never of a gradient
  if ((p.transposed || p.reversed) && __any_sync(0xffffffffu, !finite)) {
    set_apart_not_finite(outputs + output_lead, staged_weights, {staged + lead, range.first, staged_rows, width}, p,
                         planes, first_row, rows);
    has_residual = true;
  }
  // relu is the same before and after rounding, so whole chunks can have it; nothing else is.
  const int pair_lead = Filter::kTransposed ? output_lead : lead | output_lead;  // of what moves two at a time
  const bool plain = Filter::kFixed && p.centered && !has_residual && pair_lead % kColumns == 0 &&
                     (p.activation == Activation::identity || p.activation == Activation::relu);
  if constexpr (Filter::kFixed) {
    uint32_t lane_column = lane;
    const int lane_group = p.lanes.columns.split(lane_column);
    const int strips = (rows + p.lanes.rows * kStep - 1) / (p.lanes.rows * kStep), groups = planes * strips;
    // Of all strips, the last has the fewest rows, and the fewest source rows below it.
    const int last_strip = (strips - 1) * p.lanes.rows * kStep;
    const int known = min((rows - last_strip) / kStep, steps_above<Filter>(range.end, first_row + last_strip));
    const auto walk_all = [&](auto chosen) {
      constexpr bool kPlain = decltype(chosen)::value;
      float weights[kHeld] = {};
#pragma unroll 1
      for (int first_group = 0; first_group < groups; first_group += p.lanes.groups) {
        // Lanes without a walk go along with the first ones'.
        const bool has_walk = lane_group < p.lanes.groups && first_group + lane_group < groups;
        uint32_t own_walk = first_group + (has_walk ? lane_group : 0);
        const uint32_t plane = whole ? p.lanes.strips.split(own_walk) : 0;
        const float* own_weights = staged_weights + plane * p.weight_pitch;
        if (whole || first_group == 0) {
#pragma unroll
          for (int i = 0; i < kHeld; i += 4) {
            const auto four = ptx::load_vector<4>(own_weights + i);
#pragma unroll
            for (int j = 0; j < 4; ++j) weights[i + j] = four[j];
          }
        }
        const float bias = weights[kTaps];
        const int row = static_cast<int>(own_walk) * p.lanes.rows * kStep;  // of the piece
        const PlaneView<T> view{staged + lead + plane * plane_elements, range.first, staged_rows, width};
#pragma unroll 1
        for (int first = 0; first < columns; first += static_cast<int>(p.lanes.columns.divisor()) * kColumns) {
          int column = first + static_cast<int>(lane_column) * kColumns;
          const bool works = has_walk && column < columns;
          if (column >= columns) column = first;
          const int count = works ? min(p.lanes.rows, (rows - row + kStep - 1) / kStep) : 0;
          const Walk walk{p.lanes.rows, known, count, works};
          T* place = outputs + output_lead + plane * output_plane + row * columns + column;
          int rows_left = rows - row;
          const auto emit = [&](bool exists, bool is_known, const auto& sums) {
            const int made = kStep == 1 || is_known ? kStep : rows_left;
            if constexpr (kPlain) {
              if (exists) round_outputs<T, kColumns>(place, columns, made, sums);
            } else {
              if (exists) finish_outputs<T, kColumns>(place, columns, made, columns - column, sums, has_residual, p);
            }
            place += kStep * columns;
            rows_left -= kStep;
          };
          if constexpr (!Filter::kTransposed) {
            walk_down<Filter, kPlain>(view, staged - kPlaneGuard, weights, bias,
                                      (first_row + row) * Filter::kStride - p.rows.offset,
                                      column * Filter::kStride - p.columns.offset, walk, emit);
          } else {
            walk_down_transposed<Filter, kPlain>(view, staged - kPlaneGuard, weights, bias, (first_row + row) / 2,
                                                 column / 2, walk, emit);
          }
        }
      }
    };
    if (plain) {
      walk_all(std::true_type{});
    } else {
      walk_all(std::false_type{});
    }
  } else {
    constexpr bool kMayBeTall = !Filter::kTransposed;
    const int height = kMayBeTall && p.tall ? kTall : 1;
    const int items = planes * ((rows + height - 1) / height) * columns;
#pragma unroll 1
    for (int item = lane; item < items; item += kWarp) {
      uint32_t column = item;
      uint32_t row = p.output_columns.split(column);
      const uint32_t plane = whole ? p.output_rows.split(row) : 0;
      row *= height;
      const float* own_weights = staged_weights + plane * p.weight_pitch;
      const PlaneView<T> view{staged + lead + plane * plane_elements, range.first, staged_rows, width};
      T* place = outputs + output_lead + plane * output_plane + row * columns + column;
      const int output_row = first_row + static_cast<int>(row), rows_left = rows - static_cast<int>(row);
      if (kMayBeTall && p.tall) {
        float sums[kTall] = {};
        correlate_tall(view, p, own_weights, output_row, static_cast<int>(column), sums);
        const float bias = own_weights[taps];
#pragma unroll
        for (float& sum : sums) sum += bias;
        finish_outputs<T, 1>(place, columns, rows_left, 1, sums, has_residual, p);
      } else {
        const float sum = correlate<T, Filter::kTransposed>(view, p, own_weights, output_row, static_cast<int>(column));
        const float sums[1] = {sum + own_weights[taps]};
        finish_outputs<T, 1>(place, 0, 1, 1, sums, has_residual, p);
      }
    }
  }
  __syncwarp();
  store_flat(output, output_count, outputs, plain && p.activation == Activation::relu);
}

}  // namespace fastconv::depthwise
