// From accumulators to memory in the common case: bias and relu at most, and every 16 bytes of the output exist or do
// not. A lane's place is told once a tile; from there on it takes steps.
#pragma once

#include "kernels/mma_conv/lower_bound.h"
#include "kernels/mma_conv/turned_slab.cuh"
#include "kernels/staged_conv/operands.cuh"
#include "ptx/global_store.h"
#include "ptx/keep.h"

namespace fastconv::staged {

// Columns of a unit that exist.
__device__ __forceinline__ int columns_of_unit(const Parameters& p, int unit) {
  return min(p.unit_filters, p.all_filters - unit * p.unit_filters);
}

// Where the first outputs lie that a lane stores of a tile's next `units` units. A block's lane has one, for all tiles.
template <class Unit, int units>
class PlainPlace {
  using Element = typename Unit::Element;
  static constexpr int kColumns = units * Unit::kColumns;

 public:
  using Slab = mma::TurnedSlab<Element, kColumns>;

  __device__ __forceinline__ PlainPlace(const Parameters& p, int unit, int warp_row) {
    const int tile_row = warp_row + (p.along_pixels ? Slab::row_of_lane() : first_row());
    const int row = tile_row >> p.tile_width_log2, column = tile_row & ((1 << p.tile_width_log2) - 1);
    const int64_t channel =
        (unit + first_column(p) / Unit::kColumns) * p.unit_filters + first_column(p) % Unit::kColumns;
    const auto* first = static_cast<const Element*>(p.out.output) + channel * p.output_channel +
                        p.rows.output_first * p.output_strides.row + p.columns.output_first * p.output_strides.column;
    in_first_tile_ = ptx::keep(static_cast<uint64_t>(reinterpret_cast<uintptr_t>(first)) + row * p.plain_row_bytes +
                               column * p.plain_column_bytes);
    all_rows_ = ptx::keep(p.rows.outputs - row);
    all_columns_ = ptx::keep(p.columns.outputs - column);
  }

  __device__ __forceinline__ void begin(const Parameters& p, const Tile& tile) {
    to = reinterpret_cast<unsigned char*>(in_first_tile_) + tile.batch * p.plain_batch_bytes +
         int64_t{tile.row} * p.plain_row_bytes + int64_t{tile.column} * p.plain_column_bytes;
    rows_left = all_rows_ - tile.row;
    columns_left = all_columns_ - tile.column;
  }

  __device__ __forceinline__ void go_on(const Parameters& p) { to += units * p.plain_unit_bytes; }

  // Of the pass's columns and of the warp's pixels, the lane's first ones.
  __device__ __forceinline__ static int first_column(const Parameters& p) {
    return p.along_pixels ? Slab::column_of_lane() : threadIdx.x % kAcross * Slab::kChunk;
  }
  __device__ __forceinline__ static int first_row() { return (threadIdx.x & 31) / kAcross; }

  static constexpr int kAcross = kColumns / Slab::kChunk, kRows = 32 / kAcross;  // that a turn takes, along columns

  unsigned char* to;
  int rows_left, columns_left;  // to the end of the output

 private:
  uint64_t in_first_tile_;
  int all_rows_, all_columns_;  // from the lane's in the first tile on
};

// sums: of `units` units from `unit` on, which is where `place` is; they get the bias. bias: shared memory
// [units * columns].
template <class Unit, int units>
__device__ __forceinline__ void store_plain(float (&sums)[units][Unit::kRowTiles][Unit::kColumnTiles][4],
                                            unsigned char* staging, const float* bias, const Parameters& p,
                                            const PlainPlace<Unit, units>& place, int unit) {
  using Place = PlainPlace<Unit, units>;
  using Slab = typename Place::Slab;
  using Element = typename Unit::Element;
  constexpr int kColumns = units * Unit::kColumns, kEights = 2 * Slab::kRowTiles;
  static_assert(Slab::kBytes <= kColumns * kStagingBytes, "a warp's staging memory holds it");
  if (p.bias != nullptr) {
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const auto two = ptx::load_vector<2>(bias + 8 * n + 2 * (threadIdx.x & 3));
#pragma unroll
      for (int m = 0; m < Unit::kRowTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[n / Unit::kColumnTiles][m][n % Unit::kColumnTiles][i] += two[i & 1];
      }
    }
  }
  const float bound = mma::lower_bound_of(p.out.activation);
#pragma unroll
  for (int m = 0; m < Unit::kRowTiles; m += Slab::kRowTiles) {
    if (m > 0) __syncwarp();
    const auto put_all = [&](auto along_pixels) {
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
        for (int n = 0; n < kColumns / 8; ++n) {
          const float* two = sums[n / Unit::kColumnTiles][m + eight / 2][n % Unit::kColumnTiles] + eight % 2 * 2;
          Slab::template put<along_pixels.value>(staging, eight, n, two, bound);
        }
      }
    };
    if (Slab::kHasOneOrder || !p.along_pixels) {
      put_all(std::false_type());
    } else {
      put_all(std::true_type());
    }
    __syncwarp();
    // The first pixel of this row tile, as the host tells it of 8 and of 16 pixels.
    const PixelStep& sixteen = p.plain_steps[1];
    unsigned char* to = place.to + (m > 0 ? sixteen.bytes : 0);
    const int rows_left = place.rows_left - (m > 0 ? sixteen.rows : 0);
    const int columns_left = place.columns_left - (m > 0 ? sixteen.columns : 0);
    if (p.along_pixels) {
      const bool exists = rows_left > 0 && columns_left > 0;
      ptx::Vector<Element, Slab::kChunk> values[kColumns / 8];
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) values[n] = Slab::along_rows(staging, n);
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        const int of_unit = n % Unit::kColumnTiles * 8 + Slab::column_of_lane();
        ptx::store_global_if(exists && of_unit < columns_of_unit(p, unit + n / Unit::kColumnTiles),
                             reinterpret_cast<Element*>(to), values[n]);
        to += (n + 1) % Unit::kColumnTiles == 0 ? p.plain_last_eight_bytes : p.plain_eight_bytes;
      }
    } else {
      const int column = Place::first_column(p);
      const bool exists = column % Unit::kColumns < columns_of_unit(p, unit + column / Unit::kColumns);
      const int pixels_left = exists ? columns_left : 0;
      constexpr int kTurns = 8 / Place::kRows;
      ptx::Vector<Element, Slab::kChunk> values[kEights * kTurns];
#pragma unroll
      for (int i = 0; i < kEights * kTurns; ++i) {
        values[i] = Slab::along_columns(staging, i / kTurns, Place::first_row() + i % kTurns * Place::kRows,
                                        column / Slab::kChunk);
      }
#pragma unroll
      for (int i = 0; i < kEights * kTurns; ++i) {
        const int eight = i / kTurns, turn = i % kTurns;
        const auto of_eight = [&](int PixelStep::* field) {
          return (eight % 2) * p.plain_steps[0].*field + (eight / 2) * sixteen.*field;
        };
        const bool is_there =
            rows_left > of_eight(&PixelStep::rows) && pixels_left > of_eight(&PixelStep::columns) + turn * Place::kRows;
        ptx::store_global_if(is_there,
                             reinterpret_cast<Element*>(to + of_eight(&PixelStep::bytes) + turn * p.plain_turn_bytes),
                             values[i]);
      }
    }
  }
  __syncwarp();
}

}  // namespace fastconv::staged
