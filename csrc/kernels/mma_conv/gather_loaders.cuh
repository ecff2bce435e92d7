// The two operands of fprop and dgrad on their way to shared memory.
//
// The sum runs over (tap row, tap column, channel), channels fastest and filled up to whole chunks. A thread copies the
// same chunk of every slice for a few rows of the tile, so it keeps one place in the sum and moves it on by a slice at
// a time.
#pragma once

#include "kernels/mma_conv/border.cuh"
#include "kernels/mma_conv/parameters.h"

namespace fastconv::mma {

// A row of the tile, an output pixel: where its tap 0 lies in the source, and which taps fall inside it. Where what
// lies outside is not zeros, every tap takes something, and the place of tap 0 stands in place of the bits.
struct alignas(16) SourceRow {
  int64_t offset;                      // in elements, of the group's first channel; may be before the tensor
  uint32_t valid_rows, valid_columns;  // bit t: tap t; none for a row that does not exist

  __device__ __forceinline__ static SourceRow bordered(int64_t offset, int row, int column) {
    return {offset, static_cast<uint32_t>(row), static_cast<uint32_t>(column)};
  }
  __device__ __forceinline__ int row() const { return static_cast<int>(valid_rows); }
  __device__ __forceinline__ int column() const { return static_cast<int>(valid_columns); }

  // By one access: lanes that write neighbouring rows member by member meet in every fourth bank.
  __device__ __forceinline__ void store(SourceRow* place) const {
    ptx::store_vector(
        reinterpret_cast<uint64_t*>(place),
        ptx::Vector<uint64_t, 2>{static_cast<uint64_t>(offset), uint64_t{valid_columns} << 32 | valid_rows});
  }
};

// A place in the sum, and the distance that one slice moves it.
class TapCursor {
 public:
  __device__ __forceinline__ TapCursor(uint32_t begin, uint32_t depth, const FastDivider<uint32_t>& channel_pitch,
                                       const FastDivider<uint32_t>& taps_across) {
    channel_pitch_ = channel_pitch.divisor();
    taps_across_ = taps_across.divisor();
    uint32_t taps = channel_pitch.split(begin);
    channel = begin;
    row = taps_across.split(taps);
    column = taps;
    uint32_t step = depth, tap_step = channel_pitch.split(step);
    channel_step_ = step;
    row_step_ = taps_across.split(tap_step);
    column_step_ = tap_step;
  }

  __device__ __forceinline__ void advance() {
    channel += channel_step_;
    column += column_step_;
    row += row_step_;
    if (channel >= channel_pitch_) channel -= channel_pitch_, ++column;
    if (column >= taps_across_) column -= taps_across_, ++row;
  }

  int row, column, channel;

 private:
  int channel_pitch_, taps_across_, channel_step_, row_step_, column_step_;
};

template <class Shape>
struct ThreadChunk {
  static constexpr int kChunks = Shape::kDepth / Shape::kChunk;
  static constexpr int kRowStep = Shape::kThreads / kChunks;
  static_assert(kRowStep % 8 == 0, "all rows of a thread are swizzled alike");
  const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
  const int place = swizzled<kChunks>(row, chunk) * 16;  // in bytes

  // The rows that a thread copies of a tile of `rows`: rows are shared as evenly as they allow, and where that is not
  // evenly, the last one is past the tile for some threads.
  template <int rows>
  static constexpr int kShare = (rows + kRowStep - 1) / kRowStep;
  template <int rows>
  __device__ __forceinline__ bool has(int i) const {
    return rows % kRowStep == 0 || row + i * kRowStep < rows;
  }
};

template <class Shape, bool narrow>
class SourceLoader {
  using Element = typename Shape::Element;
  using Thread = ThreadChunk<Shape>;
  static constexpr int kRows = Thread::template kShare<Shape::kRows>;

 public:
  // rows: [kRows], in shared memory, as long as the loader. begin: the block's first term of the sum.
  __device__ __forceinline__ SourceLoader(const GatherParameters& parameters, const SourceRow* rows, uint32_t begin,
                                          const FastDivider<uint32_t>& taps_across)
      : parameters_(parameters),
        rows_(rows),
        cursor_(begin + Thread().chunk * Shape::kChunk, Shape::kDepth, parameters.channel_pitch, taps_across),
        row_distance_(parameters.rows.tap_step * parameters.source_strides.row),
        column_distance_(parameters.columns.tap_step * parameters.source_strides.column),
        channels_(parameters.source_channels),
        piece_bytes_(parameters.piece_bytes) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const bool exists = Thread().template has<Shape::kRows>(i);
      const SourceRow row = exists ? rows[Thread().row + i * Thread::kRowStep] : SourceRow{0, 0, 0};
      pointers_[i] = static_cast<const Element*>(parameters.source) + row.offset;
      valid_rows_[i] = row.valid_rows;
      valid_columns_[i] = row.valid_columns;
    }
  }

  // stage: the left operand's part of it. Moves on to the next slice.
  __device__ __forceinline__ void load(unsigned char* stage) {
    if (parameters_.border.is_mapped) {
      load_bordered(stage);
    } else {
      load_zero_padded(stage);
    }
    cursor_.advance();
  }

 private:
  __device__ __forceinline__ void load_zero_padded(unsigned char* stage) const {
    // Past the last tap there is no valid row, and bit 31 is never set.
    const int row = min(cursor_.row, 31);
    const int64_t distance = row * row_distance_ + cursor_.column * column_distance_ + cursor_.channel;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (!Thread().template has<Shape::kRows>(i)) continue;
      const bool valid = (valid_rows_[i] >> row) & (valid_columns_[i] >> cursor_.column) & 1;
      copy_chunk<Element, narrow>(stage + Thread().place + i * Thread::kRowStep * Thread::kChunks * 16,
                                  pointers_[i] + distance, valid, channels_ - cursor_.channel, piece_bytes_);
    }
  }

  // Rows are read from shared memory again instead of being kept, and are not unrolled: no register of the other way is
  // spent on this one. It has one phase, for it is fprop's.
  __device__ __forceinline__ void load_bordered(unsigned char* stage) const {
    const bool exists = cursor_.row < parameters_.rows.phases[0].tap_count;
    const int row = cursor_.row * parameters_.rows.tap_step, column = cursor_.column * parameters_.columns.tap_step;
    const Element* source = static_cast<const Element*>(parameters_.source) + cursor_.row * row_distance_ +
                            cursor_.column * column_distance_ + cursor_.channel;
#pragma unroll 1
    for (int i = 0; i < kRows; ++i) {
      if (!Thread().template has<Shape::kRows>(i)) continue;
      const SourceRow at = rows_[Thread().row + i * Thread::kRowStep];
      copy_bordered_chunk<Element, narrow>(stage + Thread().place + i * Thread::kRowStep * Thread::kChunks * 16,
                                           source + at.offset, parameters_.border, parameters_.source_strides,
                                           at.row() + row, at.column() + column, exists, channels_ - cursor_.channel,
                                           piece_bytes_);
    }
  }

  const GatherParameters& parameters_;
  const SourceRow* rows_;
  const Element* pointers_[kRows];
  uint32_t valid_rows_[kRows], valid_columns_[kRows];
  TapCursor cursor_;
  const int64_t row_distance_, column_distance_;
  const int channels_, piece_bytes_;
};

// Weights are [columns][sum], the sum contiguous and whole chunks.
template <class Shape>
class WeightLoader {
  using Element = typename Shape::Element;
  using Thread = ThreadChunk<Shape>;
  static constexpr int kRows = Thread::template kShare<Shape::kColumns>;

 public:
  // weights: of the tile's first column; `columns` of them exist, each `pitch` long.
  __device__ __forceinline__ WeightLoader(const Element* weights, int columns, int pitch, int begin)
      : pointer_(weights + int64_t{Thread().row} * pitch + begin + Thread().chunk * Shape::kChunk),
        step_(int64_t{Thread::kRowStep} * pitch),
        left_(pitch - begin - Thread().chunk * Shape::kChunk),
        rows_(columns - Thread().row) {}

  __device__ __forceinline__ void load(unsigned char* stage) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (!Thread().template has<Shape::kColumns>(i)) continue;
      const bool valid = left_ > 0 && i * Thread::kRowStep < rows_;
      ptx::copy_async<16>(stage + Thread().place + i * Thread::kRowStep * Thread::kChunks * 16, pointer_ + i * step_,
                          valid ? 16 : 0);
    }
    pointer_ += Shape::kDepth;
    left_ -= Shape::kDepth;
  }

 private:
  const Element* pointer_;
  const int64_t step_;
  int left_, rows_;
};

}  // namespace fastconv::mma
