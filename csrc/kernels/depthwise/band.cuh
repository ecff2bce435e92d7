// Depthwise fprop and dgrad of stride 1 on tensor cores, W innermost, 16-bit types: for filters so large that
// multiply-adds one by one would take longer than memory.
//
// A filter row is a band matrix: output[p, q] = sum over r of sum over c of x[p + r, c] B_r[c, q], B_r[c, q] = w[r, c -
// q]. With 16 rows of outputs as M, 8 columns as N and 16 columns of x as K, the block of B_r at column d of a window
// depends on d alone, a multiple of 8 from -8 on, so that few fragments (kBand) serve all outputs; and the lower half
// of one is the upper half of the next. x needs no copy per tap: the rows of the left operand for tap row r are the
// rows below.
//
// As in planes.cuh a warp works alone on whole planes or rows of one. It turns the flat piece into rows of an odd
// number of chunks of 16 bytes with zeros around, which ldmatrix reads without bank conflicts.
#pragma once

#include "kernels/depthwise/planes.cuh"
#include "ptx/ldmatrix.h"
#include "ptx/mma.h"

namespace fastconv::depthwise {

constexpr int kBandRows = 2, kBandColumns = 4;  // tiles of 16 x 8 outputs that a warp computes at a time

// Fragments of a filter row of `taps`, and elements of its row in shared memory, zeros included.
FASTCONV_HOST_DEVICE constexpr int band_of(int taps) {
  return (taps + 14) / 8 + 1 < 3 ? 3 : (taps + 14) / 8 + 1;
}
FASTCONV_HOST_DEVICE constexpr int band_pitch(int band) {
  return 8 * band + 24;
}
constexpr int kLargestBand = 6;  // 33 taps

struct BandParameters {
  PlanesParameters planes;                // weight_pitch: elements of T here
  int row_place, row_pitch, staged_rows;  // turned rows: place in a warp's shared memory, elements of one, how many
  int weights_place;
};

// Elements of a filter row in shared memory begin at tap -16.
template <typename T, int kBand>
__device__ __forceinline__ void load_band(const T* row, uint32_t (&fragments)[kBand + 1]) {
  const int lane = threadIdx.x % kWarp, first = 16 - 8 + 2 * (lane % 4) - lane / 4;
#pragma unroll
  for (int b = 0; b <= kBand; ++b) {
    const uint32_t low = row[first + 8 * b].bits, high = row[first + 8 * b + 1].bits;
    fragments[b] = low | high << 16;
  }
}

// The definition, for sums that are not finite: a zero of the band times an infinity is none of the sum's terms. In
// fprop a zero of the padding is one.
template <typename T>
__device__ float exact_sum(const PlaneView<T>& view, const PlanesParameters& p, const T* filter, int pitch, int row,
                           int column) {
  float sum = 0;
#pragma unroll 1
  for (int r = 0; r < p.rows.taps; ++r) {
    bool row_inside;
    const T* from = view.row(row - p.rows.offset + r, row_inside);
#pragma unroll 1
    for (int s = 0; s < p.columns.taps; ++s) {
      const int place = column - p.columns.offset + s;
      const bool inside = row_inside && static_cast<unsigned>(place) < static_cast<unsigned>(view.width);
      if (!inside && p.reversed) continue;
      sum += (inside ? Numeric<T>::load(from[place]) : 0.0f) * Numeric<T>::load(filter[r * pitch + 16 + s]);
    }
  }
  return sum;
}

// A lane's four outputs of a tile, its first at (row, column): by the definition those that are not finite. Values move
// through the first in turn, so that there is one copy of the code.
template <typename T>
__device__ __forceinline__ void replace_not_finite(float (&values)[4], const PlaneView<T>& view,
                                                   const PlanesParameters& p, const T* filter, int pitch, int row,
                                                   int column, int end_row) {
#pragma unroll 1
  for (int turn = 0; turn < 4; ++turn) {
    const int y = row + turn / 2 * 8, x = column + turn % 2;
    float first = values[0];
    if (y < end_row && x < p.columns.output && !is_finite(first)) first = exact_sum(view, p, filter, pitch, y, x);
#pragma unroll
    for (int i = 0; i < 3; ++i) values[i] = values[i + 1];
    values[3] = first;
  }
}

template <typename T, int kBand>
__global__ void __launch_bounds__(kPlaneThreads, 4) band_kernel(const __grid_constant__ BandParameters all) {
  constexpr int kSteps = (kBand + 1) / 2 + 1, kPitch = band_pitch(kBand);
  const PlanesParameters& p = all.planes;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  unsigned char* own = ptx::dynamic_shared_memory<unsigned char>() + warp * p.warp_bytes;
  float* biases = reinterpret_cast<float*>(own);
  T* filters = reinterpret_cast<T*>(own + all.weights_place);
  T* rows = reinterpret_cast<T*>(own + all.row_place);
  T* staged = reinterpret_cast<T*>(own + p.source_place);
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
  RowRange range(p.rows, false, first_row, end_row);
  if (whole) range.first = 0, range.end = p.rows.source;
  const int width = p.columns.source, plane_elements = p.rows.source * width;
  const T* source = static_cast<const T*>(p.source) + n * p.source_strides.batch +
                    static_cast<int64_t>(p.multiplier.divide(first_channel)) * p.source_strides.channel +
                    range.first * width;
  const int source_rows = range.end - range.first;
  stage_flat(staged, source, whole ? planes * plane_elements : source_rows * width, static_cast<const T*>(p.source),
             static_cast<const T*>(p.source_end));
  const int lead = misalignment(source);
  const int output_plane = p.rows.output * p.columns.output;
  T* output = static_cast<T*>(p.output) + n * p.output_strides.batch + first_channel * p.output_strides.channel +
              first_row * p.columns.output;
  const int output_count = whole ? planes * output_plane : (end_row - first_row) * p.columns.output;
  const int output_lead = misalignment(output);
  stage_residual<T>(outputs, p, n, first_channel, first_row, output_count, output_lead);
  ptx::commit_async_copies();
  const int filter_elements = p.rows.taps * kPitch;
  for (int i = lane; i < planes * filter_elements; i += kWarp) {
    const int line = i / kPitch, s = i - line * kPitch - 16;
    const int plane = line / p.rows.taps, r = line - plane * p.rows.taps;
    uint32_t channel = first_channel + plane;
    p.tiling.channels.split(channel);
    T value{};
    if (s >= 0 && s < p.columns.taps) {
      const int source_r = p.reversed ? p.rows.taps - 1 - r : r, source_s = p.reversed ? p.columns.taps - 1 - s : s;
      value = static_cast<const T*>(p.weights)[channel * p.weight_strides.filter + source_r * p.weight_strides.row +
                                               source_s * p.weight_strides.column];
    }
    filters[i] = value;
  }
  for (int plane = lane; plane < planes; plane += kWarp) {
    uint32_t channel = first_channel + plane;
    p.tiling.channels.split(channel);
    biases[plane] = p.bias != nullptr ? Numeric<T>::load(static_cast<const T*>(p.bias)[channel]) : 0.0f;
  }
  // Zeros around the rows stay; the rows themselves are written for every plane.
  for (int i = lane * kChunk<T>; i < all.staged_rows * all.row_pitch; i += kWarp * kChunk<T>) {
    ptx::store_vector(rows + i, ptx::Vector<T, kChunk<T>>{});
  }
  ptx::wait_async_copies<0>();
  __syncwarp();

#pragma unroll 1
  for (int plane = 0; plane < planes; ++plane) {
    // Turn: row first_row - offset + y of the source, column c - offset, lies at rows[y][c].
    const T* flat = staged + lead + plane * plane_elements;
    const int row_shift = range.first - (first_row - p.rows.offset);
    for (int y = 0; y < source_rows; ++y) {
      if (static_cast<unsigned>(y + row_shift) >= static_cast<unsigned>(all.staged_rows)) continue;
      T* to = rows + (y + row_shift) * all.row_pitch;
      for (int x = lane; x < width; x += kWarp) {
        const int place = x + p.columns.offset;
        if (place >= 0 && place < all.row_pitch) to[place] = flat[y * width + x];
      }
    }
    __syncwarp();

    const T* filter = filters + plane * filter_elements;
    const PlaneView<T> view{flat, range.first, source_rows, width};
    T* out = outputs + output_lead + plane * output_plane;
    const float bias = biases[plane];
#pragma unroll 1
    for (int row = 0; row < end_row - first_row; row += 16 * kBandRows) {
#pragma unroll 1
      for (int column = 0; column < p.columns.output; column += 8 * kBandColumns) {
        const int row_tiles = min((end_row - first_row - row + 15) / 16, kBandRows);
        const int column_tiles = min((p.columns.output - column + 7) / 8, kBandColumns);
        float sums[kBandRows * kBandColumns][1][1][4] = {};
        const T* lane_row = rows + (row + (lane / 8 % 2) * 8 + lane % 8) * all.row_pitch + column + lane / 16 * 8;
#pragma unroll 1
        for (int r = 0; r < p.rows.taps; ++r, lane_row += all.row_pitch) {
          uint32_t band[kBand + 1];
          load_band<T, kBand>(filter + r * kPitch, band);
#pragma unroll
          for (int m = 0; m < kBandRows; ++m) {
            if (m >= row_tiles) continue;
#pragma unroll
            for (int j = 0; j < kSteps; ++j) {
              if (2 * j + 2 - kBand >= column_tiles) continue;
              uint32_t pixels[1][4];
              ptx::load_matrices<4>(pixels[0], lane_row + m * 16 * all.row_pitch + 16 * j);
#pragma unroll
              for (int t = 0; t < kBandColumns; ++t) {
                const int b = 2 * j - t + 1;
                if (b < 0 || b >= kBand || t >= column_tiles) continue;
                const uint32_t taps[1][2] = {{band[b < 0 ? 0 : b], band[b < 0 ? 0 : b + 1]}};
                ptx::multiply_add<T>(sums[m * kBandColumns + t], pixels, taps);
              }
            }
          }
        }

        // Finish.
#pragma unroll 1
        for (int tile = 0; tile < kBandRows * kBandColumns; ++tile) {
          const int tile_row = row + tile / kBandColumns * 16 + lane / 4;
          const int tile_column = column + tile % kBandColumns * 8 + lane % 4 * 2;
          float values[4];
          bool exists[4], finite = true;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            values[i] = sums[0][0][0][i];
            exists[i] = first_row + tile_row + i / 2 * 8 < end_row && tile_column + i % 2 < p.columns.output;
            finite = finite && (!exists[i] || is_finite(values[i]));
          }
          if (!finite) replace_not_finite(values, view, p, filter, kPitch, first_row + tile_row, tile_column, end_row);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int y = tile_row + i / 2 * 8, x = tile_column + i % 2;
            values[i] += bias;
            if (p.residual != nullptr && exists[i]) values[i] += Numeric<T>::load(out[y * p.columns.output + x]);
          }
          activate_all(p.activation, values);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int y = tile_row + i / 2 * 8, x = tile_column + i % 2;
            if (exists[i]) out[y * p.columns.output + x] = Numeric<T>::store(values[i]);
          }
          // Registers have no addresses: the next tile moves to the first.
#pragma unroll
          for (int next = 0; next + 1 < kBandRows * kBandColumns; ++next) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[next][0][0][i] = sums[next + 1][0][0][i];
          }
        }
      }
    }
    __syncwarp();
  }
  store_flat(output, output_count, outputs, false);
}

}  // namespace fastconv::depthwise
