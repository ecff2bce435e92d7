// The operands of the product: weights packed in shared memory once a block, and fragments of the image's pixels.
#pragma once

#include "kernels/mma_conv/warp_tile.cuh"
#include "kernels/staged_conv/planes.cuh"
#include "kernels/staged_conv/words.cuh"

namespace fastconv::staged {

// What a warp multiplies at once: 32 pixels by the columns of a unit.
template <class ElementType, mma::Precision precision, int column_tiles>
struct Unit {
  using Element = ElementType;
  using Operand = typename std::conditional<sizeof(Element) == 4, ptx::Tf32, Element>::type;
  static constexpr mma::Precision kPrecision = precision;
  static constexpr int kRowTiles = 2, kColumnTiles = column_tiles, kColumns = 8 * column_tiles;
  static constexpr int kChunk = 16 / sizeof(Element);
  static constexpr int kStepDepth = 2 * kChunk;  // k of one mma
};

// A term of the sum: what of the source it takes, and by which weight. channel: of the unit by chunks, else of all.
struct Term {
  int row, column, channel;
  bool exists;
};

template <bool by_words>
__device__ __forceinline__ Term term_at(const Parameters& p, uint32_t k) {
  if (by_words && p.ordered_words > 0) {
    const uint32_t at = k >> p.word_log2;
    const uint32_t word = at < static_cast<uint32_t>(p.ordered_words) ? p.word_order[at] : kNoWord;
    if (word == kNoWord) return {0, 0, 0, false};
    k = (word << p.word_log2) + k - (at << p.word_log2);
  }
  const uint32_t outer = p.inner.split(k);
  if constexpr (by_words) {
    const uint32_t column = p.pitch.split(k);
    return {static_cast<int>(outer), static_cast<int>(column), static_cast<int>(k),
            static_cast<int>(outer) < p.taps_down && static_cast<int>(column) < p.taps_across &&
                static_cast<int>(k) < p.all_channels};
  } else {
    uint32_t column = outer;
    const uint32_t row = p.taps_across_divider.split(column);
    return {static_cast<int>(row), static_cast<int>(column), static_cast<int>(k), static_cast<int>(row) < p.taps_down};
  }
}

// Where a tap's pixel lies, seen from the pixel of tap (0, 0), in bytes.
__device__ __forceinline__ int tap_place(const Parameters& p, int row, int column) {
  return row * p.dilation_rows * p.row_pitch + column_place(p, column * p.dilation_columns);
}

// An output channel: `column` of unit `unit`.
struct Filter {
  int group, filter, channel;  // of the unit, of its group, of all
  bool exists;
};

template <bool by_words>
__device__ __forceinline__ Filter filter_at(const Parameters& p, int unit, int column) {
  const int channel = unit * p.unit_filters + column;
  const bool exists = column < p.unit_filters && channel < p.all_filters;
  if constexpr (by_words) {
    return {0, channel, channel, exists};
  } else {
    uint32_t filter = column;
    const uint32_t group = p.group_filters.split(filter);
    return {static_cast<int>(group), static_cast<int>(filter), channel, exists};
  }
}

// weights: [units * columns][steps * kStepDepth], rows weight_pitch bytes apart; an odd number of chunks, so that the
// eight rows of an ldmatrix lie in different banks. Zero where a column's group has no such channel. Rounded, for TF32.
template <class Unit, bool by_words>
__device__ __forceinline__ void pack_weights(const Parameters& p, unsigned char* weights, int first_unit) {
  using Element = typename Unit::Element;
  const int items = p.units * Unit::kColumns * static_cast<int>(p.depth.divisor());
#pragma unroll 4
  for (int i = threadIdx.x; i < items; i += kThreads) {
    uint32_t k = i;
    const int column = static_cast<int>(p.depth.split(k));
    const int unit = first_unit + column / Unit::kColumns;
    const Filter filter = filter_at<by_words>(p, unit, column % Unit::kColumns);
    Term term = term_at<by_words>(p, k);
    int64_t group = 0;
    if constexpr (!by_words) {
      uint32_t channel = term.channel;
      term.exists = term.exists && static_cast<int>(p.group_channels.split(channel)) == filter.group;
      term.channel = static_cast<int>(channel);
      group = int64_t{unit} * p.unit_groups + filter.group;
    }
    Element value{};
    if (term.exists && filter.exists) {
      value = static_cast<const Element*>(
          p.weights)[group * p.weight_group + filter.filter * p.weight_output + term.channel * p.weight_input +
                     term.row * p.weight_row + term.column * p.weight_column];
    }
    if constexpr (Unit::kPrecision == mma::Precision::tf32) {
      value = __uint_as_float(ptx::round_to_tf32(__float_as_uint(value)));
    }
    reinterpret_cast<Element*>(weights + column * p.weight_pitch)[k] = value;
  }
}

// bias: [units * columns]. Zero where there is no such filter.
template <class Unit, bool by_words>
__device__ __forceinline__ void load_bias(const Parameters& p, float* bias, int first_unit) {
  using Element = typename Unit::Element;
  for (int i = threadIdx.x; i < p.units * Unit::kColumns; i += kThreads) {
    const Filter filter = filter_at<by_words>(p, first_unit + i / Unit::kColumns, i % Unit::kColumns);
    bias[i] = filter.exists ? Numeric<Element>::load(static_cast<const Element*>(p.bias)[filter.channel]) : 0.0f;
  }
}

// Of a word of the sum: its place in the image, and what of it belongs to the sum. Where nothing does, it is read for
// nothing where another word of the same instruction lies.
struct alignas(8) WordEntry {
  int place;
  uint32_t kept;
};

// words_at_once: that an instruction reads. table: [steps][8].
template <class Unit>
__device__ __forceinline__ void make_word_table(const Parameters& p, WordEntry* table, int words_at_once) {
  constexpr int kElement = sizeof(typename Unit::Element), kOfWord = 4 / kElement;
  const auto place_of = [&p](const Term& term) {
    return term.exists ? tap_place(p, term.row, term.column) + term.channel * kElement : 0;
  };
  for (int i = threadIdx.x; i < 8 * p.steps; i += kThreads) {
    const Term term = term_at<true>(p, i * kOfWord);
    WordEntry entry{place_of(term), 0xffffffffu};
    if (!term.exists) {
      entry = {place_of(term_at<true>(p, i / words_at_once * words_at_once * kOfWord)), 0};
    } else if (kOfWord == 2 && !term_at<true>(p, i * kOfWord + 1).exists) {
      entry.kept = 0xffffu;
    }
    ptx::store_vector(reinterpret_cast<uint32_t*>(table + i),
                      ptx::Vector<uint32_t, 2>{static_cast<uint32_t>(entry.place), entry.kept});
  }
}

constexpr int kNothing = -1;

// table: [steps][2], the places of the sum's chunks in the image; kNothing where the sum has ended.
template <class Unit>
__device__ __forceinline__ void make_chunk_table(const Parameters& p, int* table) {
  for (int i = threadIdx.x; i < 2 * p.steps; i += kThreads) {
    const Term term = term_at<false>(p, i * Unit::kChunk);
    table[i] = term.exists ? tap_place(p, term.row, term.column) +
                                 term.channel * static_cast<int>(sizeof(typename Unit::Element))
                           : kNothing;
  }
}

// Where the pixel of a row of the tile begins in the image, in bytes.
__device__ __forceinline__ int pixel_place(const Parameters& p, int tile_row) {
  const int row = tile_row >> p.tile_width_log2, column = tile_row & ((1 << p.tile_width_log2) - 1);
  const int period_rows = static_cast<int>(p.rows.period.divisor());
  const int period_columns = static_cast<int>(p.columns.period.divisor());
  return row * period_rows * p.row_pitch + column * (period_columns * p.column_pitch + p.column_gap);
}

// The pixels of a warp's fragments by words: 32 bits a lane, which no alignment of the pixels forbids. Eight pixels
// of four words each lie in different banks or in the same words: see launch/staged_word_order.h.
template <class Unit>
class WordReader {
 public:
  __device__ __forceinline__ WordReader(const Parameters& p, const unsigned char* image, const void* table,
                                        int warp_row)
      : table_(static_cast<const WordEntry*>(table) + (threadIdx.x & 3)) {
#pragma unroll
    for (int i = 0; i < 2 * Unit::kRowTiles; ++i) {
      pixels_[i] = image + pixel_place(p, warp_row + 8 * i + static_cast<int>(threadIdx.x & 31) / 4);
    }
  }

  __device__ __forceinline__ void load(uint32_t (&fragments)[Unit::kRowTiles][4], int step, int) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto entry = ptx::load_vector<2>(reinterpret_cast<const uint32_t*>(table_ + 8 * step + 4 * half));
#pragma unroll
      for (int m = 0; m < Unit::kRowTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          fragments[m][2 * half + i] = *reinterpret_cast<const uint32_t*>(pixels_[2 * m + i] + entry[0]) & entry[1];
        }
      }
    }
  }

 private:
  const unsigned char* pixels_[2 * Unit::kRowTiles];
  const WordEntry* table_;
};

// The same by ldmatrix, where pixels are whole chunks.
template <class Unit>
class ChunkReader {
 public:
  __device__ __forceinline__ ChunkReader(const Parameters& p, const unsigned char* image, const void* table,
                                         int warp_row)
      : table_(static_cast<const int*>(table) + ((threadIdx.x & 31) >> 4)), zero_(image + (p.zero_at - p.image_at)) {
#pragma unroll
    for (int m = 0; m < Unit::kRowTiles; ++m) {
      pixels_[m] = image + pixel_place(p, warp_row + 16 * m + static_cast<int>(threadIdx.x & 15));
    }
  }

  // channel_place: where the unit's channels begin in a pixel, in bytes.
  __device__ __forceinline__ void load(uint32_t (&fragments)[Unit::kRowTiles][4], int step, int channel_place) const {
    const int entry = table_[2 * step];
#pragma unroll
    for (int m = 0; m < Unit::kRowTiles; ++m) {
      ptx::load_matrices<4>(fragments[m], entry < 0 ? zero_ : pixels_[m] + entry + channel_place);
    }
  }

 private:
  const unsigned char* pixels_[Unit::kRowTiles];
  const int* table_;
  const unsigned char* zero_;
};

// weights: of the unit's first column.
template <class Unit>
__device__ __forceinline__ void load_weights(uint32_t (&fragments)[Unit::kColumnTiles][2], const unsigned char* weights,
                                             int pitch, int step) {
  const int lane = threadIdx.x & 31;
  if constexpr (Unit::kColumnTiles == 1) {
    ptx::load_matrices<2>(fragments[0], weights + (lane & 7) * pitch + 32 * step + ((lane >> 3) & 1) * 16);
  } else {
#pragma unroll
    for (int n = 0; n < Unit::kColumnTiles; n += 2) {
      const int row = 8 * n + (lane & 7) + ((lane >> 4) << 3);
      uint32_t pair[4];
      ptx::load_matrices<4>(pair, weights + row * pitch + 32 * step + ((lane >> 3) & 1) * 16);
      for (int i = 0; i < 4; ++i) fragments[n + i / 2][i % 2] = pair[i];
    }
  }
}

// sums += fragments of the image * fragments of packed weights, which are rounded already.
template <class Unit>
__device__ __forceinline__ void multiply_packed(float (&sums)[Unit::kRowTiles][Unit::kColumnTiles][4],
                                                mma::Fragments<Unit>& fragments, mma::OperandRange& range) {
  if constexpr (Unit::kPrecision == mma::Precision::tf32) {
#pragma unroll
    for (auto& tile : fragments.left) {
      for (uint32_t& bits : tile) bits = ptx::round_to_tf32(bits);
    }
    ptx::multiply_add<typename Unit::Operand>(sums, fragments.left, fragments.right);
  } else {
    mma::multiply<Unit>(sums, fragments, range);
  }
}

}  // namespace fastconv::staged
