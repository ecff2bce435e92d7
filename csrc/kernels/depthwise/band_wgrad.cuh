// Depthwise wgrad of stride 1 on tensor cores, W innermost, 16-bit types: for filters so large that multiply-adds one
// by one would take longer than memory.
//
//     dw[r, s] = sum over n, h, q of dy[n, h + top - r, q] x[n, h, q + s - left]
//
// For each row h of x that is a matrix product, with tap rows r as M, taps s as N and columns q as K. Its left operand
// is rows of dy, each one above the last, which ldmatrix gathers as it likes. Its right operand depends on q + s alone,
// so that a step of 16 columns needs two words of x more than the step before, however many taps there are. Both are
// dense, so the products wasted are those of taps that fill up the tiles, of columns that fill up steps, and of
// padding.
//
// A zero beside dy times an infinity in x is none of the definition's terms, and padding above or below x, which makes
// NaN of an infinity in dy, is passed over: sums are computed again by the definition where either may be.
#pragma once

#include "kernels/depthwise/exact_tap.cuh"
#include "kernels/depthwise/wgrad_pieces.cuh"
#include "ptx/ldmatrix.h"
#include "ptx/mma.h"

namespace fastconv::depthwise {

// Rows of zeros before those of dy: one for each place that a row may have among the banks.
constexpr int kZeroRows = 8;

struct BandWgradParameters {
  PlanesWgradParameters planes;
  int gradients_place, gradients_pitch,
      gradient_rows;              // rows of dy: place in a warp's shared memory, elements, how many
  int line_place, line_elements;  // two rows of x with zeros around
};

// Floats of a warp's sums in shared memory: rows of taps with a gap, so that the lanes of eight rows have banks of
// their own, and the bias.
FASTCONV_HOST_DEVICE constexpr int band_wgrad_totals(int row_tiles, int column_tiles) {
  return 16 * row_tiles * (8 * column_tiles + 8) + 2;
}

FASTCONV_HOST_DEVICE constexpr int band_wgrad_steps(int columns) {
  return (columns + 15) / 16;
}

// A filter of up to 16 kRowTiles x 8 kColumnTiles taps; larger ones spread such groups over blocks.
template <typename T, int kRowTiles, int kColumnTiles>
__global__ void __launch_bounds__(kPlaneThreads, 4) band_wgrad_kernel(const __grid_constant__ BandWgradParameters all) {
  constexpr int kRows = 16 * kRowTiles, kColumns = 8 * kColumnTiles, kTaps = kRows * kColumns;
  constexpr int kTotals = band_wgrad_totals(kRowTiles, kColumnTiles), kPitch = kColumns + 8;
  const PlanesWgradParameters& p = all.planes;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  unsigned char* shared = ptx::dynamic_shared_memory<unsigned char>();
  unsigned char* own = shared + warp * p.warp_bytes;
  T* staged_x = reinterpret_cast<T*>(own) + kPlaneGuard;
  T* staged_dy = reinterpret_cast<T*>(own + p.dy_place);
  T* gradients = reinterpret_cast<T*>(own + all.gradients_place) + kZeroRows * all.gradients_pitch;
  T* lines = reinterpret_cast<T*>(own + all.line_place);

  const WgradShare share(p);
  uint32_t tap_column = share.tap_group;
  const int tap_row = p.groups_of_row.split(tap_column) * kRows;
  tap_column *= kColumns;

  // What is never written stays zero: columns behind dy's, and around x's.
  for (int i = lane - kZeroRows * all.gradients_pitch; i < all.gradient_rows * all.gradients_pitch; i += kWarp) {
    gradients[i] = T{};
  }
  for (int i = lane; i < 2 * all.line_elements; i += kWarp) lines[i] = T{};

  float sums[kRowTiles][1][kColumnTiles][4] = {}, bias = 0;
  const int width = p.columns.source, columns = p.columns.output, steps = band_wgrad_steps(columns);
  const int lane_row = lane / 8 % 2 * 8 + lane % 8, lane_column = lane / 16 * 8;
  const int lane_word = 2 * (lane % 4) + lane / 4;
#pragma unroll 1
  for (int piece = share.first_piece + warp; piece < share.end_piece; piece += kPlaneWarps) {
    const WgradPiece<T> here(p, share, piece);
    here.template stage<false>(p, staged_x, staged_dy);
    const int rows = here.end_row - here.first_row;
#pragma unroll 1
    for (int image = 0; image < here.images; ++image) {
      const T* dy = here.gradients(p, staged_dy, image);
      __syncwarp();
      for (int i = lane; i < rows * columns; i += kWarp) {
        uint32_t q = i;
        const uint32_t row = p.output_columns.split(q);
        gradients[row * all.gradients_pitch + q] = dy[i];
        bias += Numeric<T>::load(dy[i]);
      }
      const PlaneView<T> view = here.view(p, staged_x, image);
#pragma unroll 1
      for (int h = 0; h < view.staged; ++h) {
        // The row before is read meanwhile, and the one before that no longer: all have met since.
        T* line = lines + h % 2 * all.line_elements;
        for (int i = lane; i < width; i += kWarp) {
          const int place = i + p.columns.offset - static_cast<int>(tap_column);
          if (static_cast<unsigned>(place) < static_cast<unsigned>(all.line_elements))
            line[place] = view.rows[h * width + i];
        }
        __syncwarp();

        // Of tap row `tap_row`; tap row r has that many rows less.
        const int newest = view.first_row + h + p.rows.offset - tap_row - here.first_row;
        const T* left[kRowTiles];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          const int row = newest - 16 * m - lane_row;
          const bool exists = static_cast<unsigned>(row) < static_cast<unsigned>(rows);
          left[m] =
              gradients + (exists ? row : (row & (kZeroRows - 1)) - kZeroRows) * all.gradients_pitch + lane_column;
        }
        const T* word = line + lane_word;
        const auto load_word = [&](int column) {
          return static_cast<uint32_t>(word[column].bits) | static_cast<uint32_t>(word[column + 1].bits) << 16;
        };
        uint32_t words[kColumnTiles + 1];  // of columns 8 j behind the step's first
#pragma unroll
        for (int j = 2; j <= kColumnTiles; ++j) words[j] = load_word(8 * (j - 2));
#pragma unroll 1
        for (int step = 0; step < steps; ++step) {
#pragma unroll
          for (int j = 0; j + 2 <= kColumnTiles; ++j) words[j] = words[j + 2];
          words[kColumnTiles - 1] = load_word(16 * step + 8 * (kColumnTiles - 1));
          words[kColumnTiles] = load_word(16 * step + 8 * kColumnTiles);
          uint32_t right[kColumnTiles][2];
#pragma unroll
          for (int n = 0; n < kColumnTiles; ++n) {
            right[n][0] = words[n];
            right[n][1] = words[n + 1];
          }
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            if (newest - 16 * m < 0 || newest - 16 * m - 15 >= rows) continue;  // zeros
            uint32_t pixels[1][4];
            ptx::load_matrices<4>(pixels[0], left[m] + 16 * step);
            ptx::multiply_add<T>(sums[m], pixels, right);
          }
        }
      }
    }
  }

  // Warps in a fixed order.
  float* totals = reinterpret_cast<float*>(shared);  // [warps][kTotals]
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) bias += __shfl_xor_sync(0xffffffffu, bias, distance);
  __syncthreads();
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const int r = 16 * m + lane / 4 + i / 2 * 8, s = 8 * n + lane % 4 * 2;
        ptx::store_vector(totals + warp * kTotals + r * kPitch + s,
                          ptx::Vector<float, 2>{{sums[m][0][n][i], sums[m][0][n][i + 1]}});
      }
    }
  }
  if (lane == 0) totals[warp * kTotals + kRows * kPitch] = bias;
  __syncthreads();
  const auto total_at = [&](int place) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < kPlaneWarps; ++w) total += totals[w * kTotals + place];
    return total;
  };
  const float bias_total = total_at(kRows * kPitch);
  if (threadIdx.x == 0) share.write_bias<T>(p, bias_total);
  static_assert(kTaps % kPlaneThreads == 0, "whole warps check their taps");
#pragma unroll 1
  for (int i = threadIdx.x; i < kTaps; i += kPlaneThreads) {
    // Eight columns of all rows, then the next: again no two lanes want one bank.
    const int own_r = i / 8 % kRows, own_s = i / (8 * kRows) * 8 + i % 8;
    const int r = tap_row + own_r, s = static_cast<int>(tap_column) + own_s;
    const bool exists = r < p.rows.taps && s < p.columns.taps;
    float total = total_at(own_r * kPitch + own_s);
    // Rows of padding were passed over, so no tap is certain where dy, whose sum this is, is not finite.
    total = share.checked_tap<T>(p, r, s, total, !exists || (is_finite(total) && is_finite(bias_total)));
    if (exists) share.write_tap<T>(p, r, s, total);
  }
}

}  // namespace fastconv::depthwise
