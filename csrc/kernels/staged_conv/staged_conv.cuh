// Convolution of few channels, all in one (a network's first layer) or in each of many groups: what an output tile
// takes of the input is read once, into shared memory, and multiplied from there on tensor cores.
//
//   by words:  pixels of 1 to 4 channels, packed as (tap row, tap column, channel) without padding to whole chunks
//   by chunks: groups of few channels; several of them make one product, whose weights are zero across groups
//
// Blocks stay: each packs its weights once and goes through many tiles.
#pragma once

#include "kernels/mma_conv/pipeline.cuh"
#include "kernels/staged_conv/epilogue.cuh"

namespace fastconv::staged {

// One sum in float32 arithmetic, over the channels of its own group. pixel: its place in the image; row, column: those
// of its first tap in the source; weights: of its filter.
template <class Unit, bool by_words>
__device__ float exact_sum(const Parameters& p, const unsigned char* pixel, int row, int column,
                           const unsigned char* weights, int channel_place, int group) {
  using Element = typename Unit::Element;
  float sum = 0;
  for (uint32_t k = 0; k < p.depth.divisor(); ++k) {
    const Term term = term_at<by_words>(p, k);
    if (!term.exists) continue;
    if (!by_words && static_cast<int>(p.group_channels.divide(term.channel)) != group) continue;
    if (p.is_transposed && !p.rows.has(row + term.row * p.dilation_rows)) continue;
    if (p.is_transposed && !p.columns.has(column + term.column * p.dilation_columns)) continue;
    const int place = tap_place(p, term.row, term.column) + channel_place + term.channel * int{sizeof(Element)};
    sum = fmaf(Numeric<Element>::load(*reinterpret_cast<const Element*>(pixel + place)),
               Numeric<Element>::load(reinterpret_cast<const Element*>(weights)[k]), sum);
  }
  return sum;
}

// Units are multiplied `units` at a time, so that a pixel's outputs are stored by whole sectors.
template <class Unit, int units, bool by_words>
__global__ void __launch_bounds__(kThreads, Unit::kPrecision == mma::Precision::split_tf32 ? 2 : 3)
    staged_conv(const __grid_constant__ Parameters p) {
  using Element = typename Unit::Element;
  using Reader = typename std::conditional<by_words, WordReader<Unit>, ChunkReader<Unit>>::type;
  auto* weights = ptx::dynamic_shared_memory<unsigned char>();
  unsigned char* table = weights + p.table_at;
  auto* places = weights + p.places_at;
  unsigned char* image = weights + p.image_at;
  const int warp = threadIdx.x / 32, warp_row = 32 * warp;
  auto* bias = reinterpret_cast<float*>(weights + p.bias_at);
  unsigned char* staging = weights + p.staging_at + warp * units * Unit::kColumns * kStagingBytes;

  uint32_t first_tile = blockIdx.x;
  uint32_t slab = first_tile;
  first_tile = p.slabs.split(slab);
  const int first_unit = static_cast<int>(slab) * p.units;

  pack_weights<Unit, by_words>(p, weights, first_unit);
  if constexpr (by_words) {
    make_word_table<Unit>(p, reinterpret_cast<WordEntry*>(table), 4);
  } else {
    make_chunk_table<Unit>(p, reinterpret_cast<int*>(table));
  }
  if (p.bias != nullptr) load_bias<Unit, by_words>(p, bias, first_unit);
  // Gaps and places of missing channels are zero for good, and so is the chunk behind the image.
  for (int i = p.image_at + 16 * static_cast<int>(threadIdx.x); i <= p.zero_at; i += 16 * kThreads) {
    ptx::store_vector(reinterpret_cast<uint32_t*>(weights + i), ptx::Vector<uint32_t, 4>{});
  }
  if constexpr (by_words) {
    note_lines<Element>(p, places);
  } else {
    note_places<Element>(p, reinterpret_cast<ImagePlace*>(places));
  }

  PlainPlace<Unit, units> place(p, first_unit, warp_row);
  for (uint32_t index = first_tile; index < p.tiles; index += gridDim.x / p.slabs.divisor()) {
    const Tile tile(p, index);
    __syncthreads();  // nobody reads the last tile's image any more
    if constexpr (by_words) {
      stage_words<Element>(p, tile, image, places);
    } else {
      // What is finished lies in the same memory as planes' scratch, at other times.
      static_assert(kScratchBytes<Element> <= kThreads / 32 * units * Unit::kColumns * kStagingBytes, "no room");
      stage_pixels<Element>(p, reinterpret_cast<ImagePlace*>(places), tile, image, weights + p.staging_at,
                            first_unit * p.unit_channels);
    }
    __syncthreads();
    const Reader reader(p, image, table, warp_row);
    place.begin(p, tile);
    const int unit_place = by_words ? 0 : p.unit_channels * int{sizeof(Element)};

#pragma unroll 1
    for (int unit = 0; unit < p.units; unit += units) {
      float sums[units][Unit::kRowTiles][Unit::kColumnTiles][4] = {};
      mma::OperandRange range;
#pragma unroll
      for (int i = 0; i < units; ++i) {
        const unsigned char* unit_weights = weights + (unit + i) * Unit::kColumns * p.weight_pitch;
        int step = 0;
#pragma unroll 2
        do {
          mma::Fragments<Unit> fragments;
          reader.load(fragments.left, step, (unit + i) * unit_place);
          load_weights<Unit>(fragments.right, unit_weights, p.weight_pitch, step);
          multiply_packed<Unit>(sums[i], fragments, range);
        } while (++step < p.steps);
      }
      const auto exact = [&](int tile_row, int its_unit, int column) {
        const int local = its_unit - first_unit;
        const int row = tile.row + (tile_row >> p.tile_width_log2);
        const int first = tile.column + (tile_row & ((1 << p.tile_width_log2) - 1));
        return exact_sum<Unit, by_words>(p, image + pixel_place(p, tile_row), p.rows.origin + row * p.rows.step,
                                         p.columns.origin + first * p.columns.step,
                                         weights + (local * Unit::kColumns + column) * p.weight_pitch,
                                         local * unit_place, filter_at<by_words>(p, its_unit, column).group);
      };
      const auto store = [&](const auto& is_suspect) {
        store_units<Unit, units>(sums, staging, bias + unit * Unit::kColumns, p, tile, place, first_unit + unit,
                                 warp_row, is_suspect, exact);
      };
      if constexpr (Unit::kPrecision == mma::Precision::split_tf32) {
        store(mma::Suspicion(range));
      } else if constexpr (!by_words) {
        // Zero weights across groups turn a neighbouring group's infinity into NaN, and so does a tap that dgrad lacks
        // with an infinite weight.
        store([](float sum) { return !(fabsf(sum) < __uint_as_float(0x7f800000u)); });
      } else {
        store([](float) { return false; });
      }
      place.go_on(p);
    }
  }
}

}  // namespace fastconv::staged
