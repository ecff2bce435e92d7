// wgrad of stems and of groups of few channels: x and dy of a tile of output pixels are read once, into shared memory,
// for all taps.
//
//   dw[filter, term] = sum over pixels of dy[pixel, filter] * x[place of pixel at term]
//
// Stems: all warps have the block's 64 filters, and each some of the terms (tap row, tap column, channel). Groups: each
// warp has 16 filters and, tap by tap, the channels of their groups; products across groups are left. A block keeps its
// sums over many tiles; the blocks' sums are added in order afterwards (kernels/split_sum.cuh).
#pragma once

#include "kernels/mma_conv/wgrad_gemm.cuh"
#include "kernels/staged_conv/operands.cuh"
#include "ptx/pairs.h"

namespace fastconv::staged {

struct WgradParameters {
  Parameters image;       // x and its tiles; columns of a unit are not used
  StagedTensor gradient;  // dy [N, K, P, Q]; the tile's pixels lie one behind the other, all its filters in each
  float* partial;         // [split][K][R][S][C/G]
  float* partial_bias;    // [split][K], or null
  int gradient_at, gradient_places_at, scratch_at;  // in shared memory, bytes
  FastDivider<uint32_t> parts, filter_tiles;        // blocks of a split; filter tiles
  int group_channels;
  int tile_filters, tile_channels;  // of a block
  int warp_channels;                // groups: of 16 filters
};

template <class ElementType, mma::Precision precision, int row_tiles, int column_tiles, bool by_words>
struct WgradUnit {
  using Element = ElementType;
  using Operand = typename std::conditional<sizeof(Element) == 4, ptx::Tf32, Element>::type;
  static constexpr mma::Precision kPrecision = precision;
  static constexpr int kRowTiles = row_tiles, kColumnTiles = column_tiles;
  static constexpr int kChunk = 16 / sizeof(Element);
  static constexpr int kStepDepth = 2 * kChunk;
  static constexpr bool kByWords = by_words;
};

// dy's fragments of 16 (float32: 8) pixels from `pixel` on, transposed. memory: of the warp's first filter.
template <class Unit>
__device__ __forceinline__ void load_gradient(uint32_t (&fragments)[Unit::kRowTiles][4], const unsigned char* memory,
                                              int pitch, int pixel) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int m = 0; m < Unit::kRowTiles; ++m) {
    if constexpr (sizeof(typename Unit::Element) == 2) {
      const int row = pixel + ((lane >> 4) << 3) + (lane & 7);
      ptx::load_matrices<4, true>(fragments[m], memory + row * pitch + (2 * m + ((lane >> 3) & 1)) * 16);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = pixel + (lane & 3) + 4 * (i >> 1), filter = 16 * m + (lane >> 2) + 8 * (i & 1);
        fragments[m][i] = *reinterpret_cast<const uint32_t*>(memory + row * pitch + filter * 4);
      }
    }
  }
}

// x's fragments of a stem: the words of the sum, two terms each, of two neighbouring pixels make a fragment of each
// term. Tiles 2j and 2j + 1 hold the first and the second terms of words 8j to 8j + 7 (float32: tile j terms 8j to
// ...). words: at the lane's first pixel of the tile. pixel_at: of the step's first pixel, seen from the tile's.
template <class Unit, int count>
__device__ __forceinline__ void load_words(uint32_t (&fragments)[Unit::kColumnTiles][2], const Parameters& p,
                                           const unsigned char* const (&words)[count], int pixel_at) {
  const auto load = [](const unsigned char* from) { return *reinterpret_cast<const uint32_t*>(from); };
  constexpr bool kHasPairs = sizeof(typename Unit::Element) == 2;
  // Pixels of a step lie eight (float32: four) apart for a lane's two registers.
  const int next = pixel_place(p, 1), half = pixel_place(p, kHasPairs ? 8 : 4);
#pragma unroll
  for (int n = 0; n < count; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const unsigned char* from = words[n] + pixel_at + i * half;
      if constexpr (kHasPairs) {
        const uint32_t first = load(from), second = load(from + next);
        fragments[2 * n][i] = ptx::lower_halves(first, second);
        fragments[2 * n + 1][i] = ptx::upper_halves(first, second);
      } else {
        fragments[n][i] = load(from);
      }
    }
  }
}

// x's fragments of groups: of one tap the warp's channels, eight a tile. channels: of the lane's first pixel and
// channel of the tile, at the tap.
template <class Unit>
__device__ __forceinline__ void load_channels(uint32_t (&fragments)[Unit::kColumnTiles][2], const Parameters& p,
                                              const unsigned char* channels, int pixel_at) {
  if constexpr (sizeof(typename Unit::Element) == 2) {
#pragma unroll
    for (int n = 0; n < Unit::kColumnTiles; n += 2) {
      uint32_t pair[4];
      ptx::load_matrices<4, true>(pair, channels + pixel_at + n * 16);
      for (int i = 0; i < 4; ++i) fragments[n + i / 2][i % 2] = pair[i];
    }
  } else {
    const int half = pixel_place(p, 4);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int n = 0; n < Unit::kColumnTiles; ++n) {
        fragments[n][i] = *reinterpret_cast<const uint32_t*>(channels + pixel_at + i * half + n * 32);
      }
    }
  }
}

// One weight's gradient (or, without a tap, the bias's) over this block's pixels, in float32 arithmetic.
template <class Element>
__device__ float exact_weight(const WgradParameters& p, int filter, int tap_row, int tap_column, int channel,
                              uint32_t first_tile, uint32_t tile_step) {
  const Parameters& image = p.image;
  const StagedTensor& dy = p.gradient;
  float sum = 0;
  for (uint32_t index = first_tile; index < image.tiles; index += tile_step) {
    const Tile tile(image, index);
    for (int i = 0; i < kTileRows; ++i) {
      const int row = tile.row + (i >> image.tile_width_log2);
      const int column = tile.column + (i & ((1 << image.tile_width_log2) - 1));
      if (row >= image.rows.outputs || column >= image.columns.outputs) continue;
      const float gradient = Numeric<Element>::load(
          static_cast<const Element*>(dy.source)[tile.batch * dy.source_batch + filter * dy.source_channel +
                                                 row * dy.source_row + column * dy.source_column]);
      if (tap_row < 0) {
        sum += gradient;
        continue;
      }
      const int y = image.rows.origin + row * image.rows.step + tap_row * image.dilation_rows;
      const int x = image.columns.origin + column * image.columns.step + tap_column * image.dilation_columns;
      const int64_t place = tile.batch * image.source_batch + y * image.source_row + x * image.source_column +
                            channel * image.source_channel;
      const bool inside = image.rows.has(y) && image.columns.has(x);
      const auto* source = static_cast<const Element*>(image.source);
      sum = fmaf(gradient, inside ? Numeric<Element>::load(source[place]) : 0.0f, sum);
    }
  }
  return sum;
}

// taps: of the filter, for groups; stems take any, and this is 1.
template <class Unit, int taps>
__global__ void __launch_bounds__(kThreads, 2) staged_wgrad(const __grid_constant__ WgradParameters p) {
  using Element = typename Unit::Element;
  constexpr bool kByWords = Unit::kByWords;
  constexpr int kElement = sizeof(Element), kTermsOfWord = kByWords && kElement == 2 ? 2 : 1;
  const Parameters& shape = p.image;
  auto* memory = ptx::dynamic_shared_memory<unsigned char>();
  auto* table = reinterpret_cast<int*>(memory + shape.table_at);             // groups: [taps]
  auto* word_table = reinterpret_cast<WordEntry*>(memory + shape.table_at);  // stems: [steps][8]
  auto* places = memory + shape.places_at;
  auto* gradient_places = reinterpret_cast<ImagePlace*>(memory + p.gradient_places_at);
  unsigned char *image = memory + shape.image_at, *gradient = memory + p.gradient_at;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;

  uint32_t part = blockIdx.x;
  const uint32_t split = p.parts.split(part);
  uint32_t filter_tile = part;
  const uint32_t term_tile = p.filter_tiles.split(filter_tile);
  const int first_filter = filter_tile * p.tile_filters, first_channel = filter_tile * p.tile_channels;
  const int warp_filter = kByWords ? 0 : 16 * warp;  // of the block's
  const int warp_channel = kByWords ? 0 : static_cast<int>(shape.group_filters.divide(16 * warp)) * p.group_channels;
  const uint32_t first_word = (term_tile * (kThreads / 32) + warp) * Unit::kColumnTiles * 8 / kTermsOfWord;
  const uint32_t split_count = gridDim.x / p.parts.divisor();

  for (int i = shape.image_at + 16 * static_cast<int>(threadIdx.x); i <= shape.zero_at; i += 16 * kThreads) {
    ptx::store_vector(reinterpret_cast<uint32_t*>(memory + i), ptx::Vector<uint32_t, 4>{});
  }
  // Where a lane reads x at its first pixel of a tile. Terms that do not exist are read and multiplied like the others,
  // as long as they meet them in no bank; nobody stores their sums.
  const unsigned char* words[kByWords ? Unit::kColumnTiles / kTermsOfWord : 1] = {};
  const unsigned char* channels = nullptr;
  if constexpr (kByWords) {
    note_lines<Element>(shape, places);
    make_word_table<Unit>(shape, word_table, 8);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < Unit::kColumnTiles / kTermsOfWord; ++n) {
      const uint32_t word = first_word + 8 * n + g;
      const int place = word < static_cast<uint32_t>(8 * shape.steps) ? word_table[word].place : 0;
      words[n] = image + pixel_place(shape, kTermsOfWord * t) + place;
    }
  } else {
    if (threadIdx.x < taps) {
      const uint32_t row = shape.taps_across_divider.divide(threadIdx.x);
      table[threadIdx.x] = tap_place(shape, row, threadIdx.x - row * shape.taps_across);
    }
    note_places<Element>(shape, reinterpret_cast<ImagePlace*>(places));
    const int pixel = kElement == 2 ? lane & 15 : t, chunk = kElement == 2 ? lane >> 4 << 4 : g << 2;
    channels = image + warp_channel * kElement + pixel_place(shape, pixel) + chunk;
  }
  note_places<Element>(p.gradient, gradient_places);

  float sums[taps][Unit::kRowTiles][Unit::kColumnTiles][4] = {};
  float bias_sums[Unit::kRowTiles][1][4] = {};
  const bool wants_bias = p.partial_bias != nullptr && (!kByWords || (warp == 0 && term_tile == 0));
  mma::OperandRange range;
  for (uint32_t index = split; index < shape.tiles; index += split_count) {
    const Tile tile(shape, index);
    __syncthreads();  // nobody reads the last tile any more
    if constexpr (kByWords) {
      stage_words<Element>(shape, tile, image, places);
    } else {
      stage_pixels<Element>(shape, reinterpret_cast<ImagePlace*>(places), tile, image, memory + p.scratch_at,
                            first_channel);
    }
    stage_pixels<Element>(p.gradient, gradient_places, tile, gradient, memory + p.scratch_at, first_filter);
    __syncthreads();
#pragma unroll 1
    for (int pixel = 0; pixel < kTileRows; pixel += Unit::kStepDepth) {
      mma::Fragments<Unit> fragments;
      load_gradient<Unit>(fragments.left, gradient + warp_filter * kElement, p.gradient.column_pitch, pixel);
      if (wants_bias) mma::add_rows<Unit>(bias_sums, fragments);
      if constexpr (kByWords) {
        load_words<Unit>(fragments.right, shape, words, pixel_place(shape, pixel));
        mma::multiply<Unit>(sums[0], fragments, range);
      } else {
#pragma unroll
        for (int tap = 0; tap < taps; ++tap) {
          mma::Fragments<Unit> of_tap = fragments;
          load_channels<Unit>(of_tap.right, shape, channels + table[tap], pixel_place(shape, pixel));
          mma::multiply<Unit>(sums[tap], of_tap, range);
        }
      }
    }
  }

  // Which weight the thread's sum number `n` (tap by tap, tile by tile) of element `i` of row tile `m` is for.
  struct Weight {
    bool exists;
    int filter, tap_row, tap_column, channel_of_x;
    int64_t place;  // in `partial`
  };
  const auto filter_of = [&](int m, int i) {
    const int inside = warp_filter + 16 * m + g + 8 * (i >> 1), filter = first_filter + inside;
    return filter < shape.all_filters && inside < p.tile_filters ? filter : -1;
  };
  const auto weight_of = [&](int m, int i, int n) {
    const int column = 2 * t + (i & 1), tap = n / Unit::kColumnTiles, tile = n % Unit::kColumnTiles;
    Weight weight{};
    weight.filter = filter_of(m, i);
    if (weight.filter < 0) return weight;
    int channel;
    if constexpr (kByWords) {
      const uint32_t word = first_word + 8 * (tile / kTermsOfWord) + column;
      const Term term = term_at<true>(shape, word * kTermsOfWord + tile % kTermsOfWord);
      weight.exists = term.exists;
      channel = weight.channel_of_x = term.channel;
      weight.tap_row = term.row;
      weight.tap_column = term.column;
    } else {
      const int of_warp = tile * 8 + column;
      weight.channel_of_x = first_channel + warp_channel + of_warp;
      channel = weight.channel_of_x - static_cast<int>(shape.group_filters.divide(weight.filter)) * p.group_channels;
      weight.exists = of_warp < p.warp_channels && channel >= 0 && channel < p.group_channels;
      weight.tap_row = shape.taps_across_divider.divide(tap);
      weight.tap_column = tap - weight.tap_row * shape.taps_across;
    }
    weight.place =
        (((int64_t{split} * shape.all_filters + weight.filter) * shape.taps_down + weight.tap_row) * shape.taps_across +
         weight.tap_column) *
            p.group_channels +
        channel;
    return weight;
  };
  const auto bias_place = [&](int filter) { return int64_t{split} * shape.all_filters + filter; };

  // Zeros beyond the last pixel times an infinity are NaN, as is what split TF32 cannot hold.
  const mma::Suspicion suspicion(range);
  bool again = false;
#pragma unroll
  for (int m = 0; m < Unit::kRowTiles; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (wants_bias && t == 0 && i % 2 == 0 && filter_of(m, i) >= 0) {
        p.partial_bias[bias_place(filter_of(m, i))] = bias_sums[m][0][i];
        again |= suspicion(bias_sums[m][0][i]);
      }
#pragma unroll
      for (int n = 0; n < taps * Unit::kColumnTiles; ++n) {
        const Weight weight = weight_of(m, i, n);
        if (!weight.exists) continue;
        const float sum = sums[n / Unit::kColumnTiles][m][n % Unit::kColumnTiles][i];
        p.partial[weight.place] = sum;
        again |= suspicion(sum);
      }
    }
  }
  if (!again) return;
  // Seldom, and so from memory and in a loop: unrolled, the exact sum's code would stand here for every sum.
#pragma unroll 1
  for (int j = 0; j < Unit::kRowTiles * 4; ++j) {
    const int m = j / 4, i = j % 4, filter = filter_of(m, i);
    if (wants_bias && t == 0 && i % 2 == 0 && filter >= 0 && suspicion(p.partial_bias[bias_place(filter)])) {
      p.partial_bias[bias_place(filter)] = exact_weight<Element>(p, filter, -1, 0, 0, split, split_count);
    }
#pragma unroll 1
    for (int n = 0; n < taps * Unit::kColumnTiles; ++n) {
      const Weight weight = weight_of(m, i, n);
      if (!weight.exists || !suspicion(p.partial[weight.place])) continue;
      p.partial[weight.place] = exact_weight<Element>(p, weight.filter, weight.tap_row, weight.tap_column,
                                                      weight.channel_of_x, split, split_count);
    }
  }
}

}  // namespace fastconv::staged
