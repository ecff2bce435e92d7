// Chunks of x under padding by anything but zeros: what stands beyond a border is another place of the same row or
// column, or a constant. No padded copy is made; each chunk's place is looked up as it is copied.
#pragma once

#include "kernels/mma_conv/copy.cuh"
#include "kernels/mma_conv/parameters.h"

namespace fastconv::mma {

// The way from place (row, column) of the padded source to the one that it is a copy of, in elements; the constant has
// none.
struct BorderWay {
  int64_t distance;
  bool is_constant;
};

__device__ __forceinline__ BorderWay border_way(const Border& border, const PixelStrides& strides, int row,
                                                int column) {
  const int from_row = padded_source(border.rows, row), from_column = padded_source(border.columns, column);
  return {int64_t{from_row - row} * strides.row + int64_t{from_column - column} * strides.column,
          from_row < 0 || from_column < 0};
}

// A chunk of the constant. Channels that only fill it up (element_count: those from this one on) stay zero: they meet
// zeros, and the constant may be infinite.
template <class Element>
__device__ __forceinline__ void store_constant(void* destination, const Border& border, int element_count) {
  constexpr int kChunk = 16 / sizeof(Element);
  ptx::Vector<Element, kChunk> values;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) values[i] = i < element_count ? Numeric<Element>::store(border.fill) : Element{};
  ptx::store_vector(static_cast<Element*>(destination), values);
}

// destination: 16 bytes of shared memory. source: where the chunk would lie if x went on beyond its borders. exists:
// whether there is such a tap and pixel at all, else the chunk is zeros. element_count: channels from this one on.
template <class Element, bool narrow>
__device__ __forceinline__ void copy_bordered_chunk(void* destination, const Element* source, const Border& border,
                                                    const PixelStrides& strides, int row, int column, bool exists,
                                                    int element_count, int piece_bytes) {
  const BorderWay way = border_way(border, strides, row, column);
  if (!exists || !way.is_constant) {
    copy_chunk<Element, narrow>(destination, source + way.distance, exists, element_count, piece_bytes);
    return;
  }
  store_constant<Element>(destination, border, element_count);
}

}  // namespace fastconv::mma
