// From accumulators to memory: a warp turns 16 pixels at a time through its own piece of shared memory, so that a lane
// holds 16 bytes of what is contiguous in the output: channels of a pixel, or pixels of a row (NCHW).
#pragma once

#include "kernels/mma_conv/finish.cuh"
#include "kernels/staged_conv/plain_store.cuh"

namespace fastconv::staged {

constexpr int kPixelPitch =
    kStagingBytes / sizeof(float);  // floats between channels where 16 pixels of each lie beside each other

// Which half of its 8 columns a chunk of 16-bit outputs finds first, in floats, where pixels lie beside each other: a
// lane reads 32 bytes by halves, and lanes 128 bytes apart would meet in the same banks.
template <int columns>
__device__ __forceinline__ int first_half(int pixel, int column) {
  return (columns >= 64 ? column >> 5 : pixel) % 2 * 4;
}

// Where the pixel of a row of the tile lies in the output; output is -1 where there is none. `left`: pixels from it to
// the end of its row.
struct PixelPlace {
  mma::RowPlace place;
  int left;
};

__device__ __forceinline__ PixelPlace output_pixel(const Parameters& p, const Tile& tile, int tile_row) {
  const int row = tile.row + (tile_row >> p.tile_width_log2);
  const int column = tile.column + (tile_row & ((1 << p.tile_width_log2) - 1));
  if (row >= p.rows.outputs || column >= p.columns.outputs) return {{-1, 0, 0}, 0};
  const int64_t y = p.rows.output_first + row * p.rows.output_step;
  const int64_t x = p.columns.output_first + column * p.columns.output_step;
  const auto offset = [&](const mma::PixelStrides& strides) {
    return tile.batch * strides.batch + y * strides.row + x * strides.column;
  };
  return {{offset(p.output_strides), offset(p.residual_strides), 0}, p.columns.outputs - column};
}

// Whatever store_plain does not take. sums, bias: see there. exact(tile row, unit, column) -> float, asked for sums
// that is_suspect(sum).
template <class Unit, int units, class IsSuspect, class Exact>
__device__ __forceinline__ void store_any(const float (&sums)[units][Unit::kRowTiles][Unit::kColumnTiles][4],
                                          float* staging, const float* bias, const Parameters& p, const Tile& tile,
                                          int unit, int warp_row, const IsSuspect& is_suspect, const Exact& exact) {
  using Element = typename Unit::Element;
  constexpr int kChunk = Unit::kChunk, kColumns = units * Unit::kColumns, kPitch = kColumns + 8;
  static_assert(16 * kPitch <= kColumns * kPixelPitch, "the staging memory holds both orders");
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  constexpr int kItems = 16 * kColumns / kChunk, kAcross = 32 / (16 / kChunk);
  static_assert(kItems % 32 == 0, "a warp has something to do in every turn");
#pragma unroll 1
  for (int m = 0; m < Unit::kRowTiles; ++m) {
    // Registers have no addresses: all tiles are looked at, one is written.
#pragma unroll
    for (int candidate = 0; candidate < Unit::kRowTiles; ++candidate) {
      if (candidate != m) continue;
#pragma unroll
      for (int n = 0; n < units * Unit::kColumnTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* two = sums[n / Unit::kColumnTiles][candidate][n % Unit::kColumnTiles] + 2 * half;
          if (p.along_pixels) {
            staging[(8 * n + 2 * t) * kPixelPitch + g + 8 * half] = two[0];
            staging[(8 * n + 2 * t + 1) * kPixelPitch + g + 8 * half] = two[1];
          } else {
            const int swapped = kChunk == 8 ? first_half<kColumns>(g, 8 * n) : 0;
            ptx::store_vector(staging + (g + 8 * half) * kPitch + 8 * n + ((2 * t) ^ swapped),
                              ptx::Vector<float, 2>{two[0], two[1]});
          }
        }
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < kItems; i += 32) {
      // Lanes take whole rows of channels, or the 16 pixels of a few channels: whole sectors, in either order.
      const int column = p.along_pixels ? i / 32 * kAcross + i % kAcross : i % (kColumns / kChunk) * kChunk;
      const int slab_row = p.along_pixels ? i % 32 / kAcross * kChunk : i / (kColumns / kChunk);
      const float* from = staging + (p.along_pixels ? column * kPixelPitch + slab_row : slab_row * kPitch + column);
      const int swapped = kChunk == 8 && !p.along_pixels ? first_half<kColumns>(slab_row, column) : 0;
      const int tile_row = warp_row + 16 * m + slab_row;
      const int of_unit = column % Unit::kColumns, its_unit = unit + column / Unit::kColumns;
      const PixelPlace pixel = output_pixel(p, tile, tile_row);
      const int channel = its_unit * p.unit_filters + of_unit;
      const int filters = min(p.unit_filters - of_unit, p.all_filters - channel);
      const int count = p.along_pixels ? pixel.left : filters;
      if (pixel.place.output < 0 || filters <= 0) continue;
      float values[kChunk];
      uint32_t suspects = 0;
#pragma unroll
      for (int j = 0; j < kChunk; j += 4) {
        const auto four = ptx::load_vector<4>(from + (j ^ swapped));
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          values[j + k] = four[k];
          if (j + k < count && is_suspect(four[k])) suspects |= 1u << (j + k);
        }
      }
      while (suspects != 0) {
        const int place = __ffs(suspects) - 1;
        suspects &= suspects - 1;
        const float sum =
            p.along_pixels ? exact(tile_row + place, its_unit, of_unit) : exact(tile_row, its_unit, of_unit + place);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) values[j] = j == place ? sum : values[j];
      }
      if (p.bias != nullptr) {
#pragma unroll
        for (int j = 0; j < kChunk; ++j) values[j] += bias[column + (p.along_pixels ? 0 : j)];
      }
      mma::finish_chunk<Element>(
          values, p.out, pixel.place,
          mma::ColumnPlace{channel * p.output_channel, channel * p.residual_channel, 0, 0, count});
    }
    __syncwarp();
  }
}

// sums, place, bias: see store_plain. exact(tile row, unit, column) -> float, asked for sums that is_suspect(sum).
template <class Unit, int units, class IsSuspect, class Exact>
__device__ __forceinline__ void store_units(float (&sums)[units][Unit::kRowTiles][Unit::kColumnTiles][4],
                                            unsigned char* staging, const float* bias, const Parameters& p,
                                            const Tile& tile, const PlainPlace<Unit, units>& place, int unit,
                                            int warp_row, const IsSuspect& is_suspect, const Exact& exact) {
  bool suspects[4] = {};  // four, that do not wait for each other
#pragma unroll
  for (const auto& of_unit : sums) {
#pragma unroll
    for (const auto& of_row : of_unit) {
#pragma unroll
      for (const auto& four : of_row) {
#pragma unroll
        for (int i = 0; i < 4; ++i) suspects[i] |= is_suspect(four[i]);
      }
    }
  }
  const bool has_suspect = suspects[0] || suspects[1] || suspects[2] || suspects[3];
  if (p.is_plain && !__any_sync(0xffffffffu, has_suspect)) {
    store_plain<Unit, units>(sums, staging, bias, p, place, unit);
  } else {
    store_any<Unit, units>(sums, reinterpret_cast<float*>(staging), bias, p, tile, unit, warp_row, is_suspect, exact);
  }
}

}  // namespace fastconv::staged
