// The input of an output tile on its way to shared memory, read once for all filters: 16 bytes at a time.
#pragma once

#include "kernels/mma_conv/copy.cuh"
#include "kernels/staged_conv/parameters.h"
#include "ptx/device.h"

namespace fastconv::staged {

struct Tile {
  int batch, row, column;  // of its first output pixel

  __device__ __forceinline__ Tile(const Parameters& p, uint32_t index) {
    uint32_t rest = p.tiles_across.divide(index);
    column = static_cast<int>(index - rest * p.tiles_across.divisor()) << p.tile_width_log2;
    batch = static_cast<int>(p.tiles_down.split(rest));
    row = static_cast<int>(rest) * (kTileRows >> p.tile_width_log2);
  }
};

// The source's place of image place `i`, for a tile that begins at output `first`.
__device__ __forceinline__ int source_place(const Axis& axis, int first, uint32_t i) {
  const int period = static_cast<int>(axis.period.divide(i));
  return axis.origin + (first + period) * axis.step + static_cast<int>(i) -
         period * static_cast<int>(axis.period.divisor());
}

// Where column x of the image begins in its row, in bytes.
__device__ __forceinline__ int column_place(const Parameters& p, uint32_t x) {
  return static_cast<int>(x) * p.column_pitch + static_cast<int>(p.columns.period.divide(x)) * p.column_gap;
}

// Pixels are chunks of 16 bytes: asynchronous copies. slab_channel: the first channel of the block's slab.
template <class Element>
__device__ __forceinline__ void stage_chunks(const Parameters& p, const Tile& tile, unsigned char* image,
                                             int slab_channel) {
  constexpr int kChunk = 16 / sizeof(Element);
  const Element* source =
      static_cast<const Element*>(p.source) + tile.batch * p.source_batch + int64_t{slab_channel} * p.source_channel;
  const int chunks = static_cast<int>(p.slab_chunks.divisor());
  const int items = p.rows.image_size * p.columns.image_size * chunks;
  for (int i = threadIdx.x; i < items; i += kThreads) {
    const uint32_t pixel = p.slab_chunks.divide(i);
    const int chunk = i - static_cast<int>(pixel) * chunks;
    const uint32_t y = p.image_columns.divide(pixel), x = pixel - y * p.image_columns.divisor();
    const int row = source_place(p.rows, tile.row, y), column = source_place(p.columns, tile.column, x);
    const bool valid = static_cast<uint32_t>(row) < static_cast<uint32_t>(p.rows.source_size) &&
                       static_cast<uint32_t>(column) < static_cast<uint32_t>(p.columns.source_size);
    const int left = (p.all_channels - slab_channel - chunk * kChunk) * static_cast<int>(sizeof(Element));
    const int bytes = valid ? max(0, min(16, left)) : 0;
    unsigned char* to = image + static_cast<int>(y) * p.row_pitch + column_place(p, x) + 16 * chunk;
    const Element* from = source + row * p.source_row + column * p.source_column + chunk * kChunk;
    if (p.piece_bytes == 16) {
      ptx::copy_async<16>(to, from, bytes);
    } else {
      mma::copy_chunk_in_pieces(to, from, bytes, p.piece_bytes);
    }
  }
  ptx::commit_async_copies();
  ptx::wait_async_copies<0>();
}

// Pixels of few channels. A line is an image row of all channels (channels-last), or of one (NCHW): neighbours in
// memory, read as the aligned chunks they lie in and handed out element by element. places: where element e of a
// channels-last line goes in its image row, in bytes.
template <class Element>
__device__ __forceinline__ void stage_words(const Parameters& p, const Tile& tile, unsigned char* image,
                                            const uint16_t* places) {
  constexpr int kChunk = 16 / sizeof(Element);
  const int per_pixel = p.planes ? 1 : p.all_channels;  // elements of a line
  const int first_column = p.columns.origin + tile.column * p.columns.step;
  // Elements of a line that the source has, counted from the image's first.
  const int begin = -first_column * per_pixel, end = begin + p.columns.source_size * per_pixel;
  const int length = p.columns.image_size * per_pixel;
  const int lines = p.rows.image_size * static_cast<int>(p.lines_channels.divisor());
  const int items = lines * static_cast<int>(p.line_chunks.divisor());
  const Element* source = static_cast<const Element*>(p.source) + tile.batch * p.source_batch;
  for (int i = threadIdx.x; i < items; i += kThreads) {
    const uint32_t line = p.line_chunks.divide(i);
    const int chunk = i - static_cast<int>(line * p.line_chunks.divisor());
    const uint32_t y = p.lines_channels.divide(line);
    const int channel = static_cast<int>(line - y * p.lines_channels.divisor());
    const int row = source_place(p.rows, tile.row, y);
    // Of the line's first element; where that lies before the tensor, it is not read.
    const Element* from = source + row * p.source_row + first_column * p.source_column + channel * p.source_channel;
    const int misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15) / static_cast<int>(sizeof(Element));
    const int first = chunk * kChunk - misaligned;
    const bool row_exists = static_cast<uint32_t>(row) < static_cast<uint32_t>(p.rows.source_size);
    ptx::Vector<Element, kChunk> values;
    if (row_exists && first >= begin && first + kChunk <= end) {
      values = ptx::load_vector_read_only<kChunk>(from + first);
    } else {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        const int element = first + j;
        values[j] = row_exists && element >= begin && element < end && element >= 0 && element < length ? from[element]
                                                                                                        : Element{};
      }
    }
    unsigned char* to = image + static_cast<int>(y) * p.row_pitch + channel * static_cast<int>(sizeof(Element));
    const int places_apart = p.planes ? p.all_channels : 1;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      const int element = first + j;
      if (element < 0 || element >= length) continue;
      *reinterpret_cast<Element*>(to + places[element * places_apart]) = values[j];
    }
  }
}

}  // namespace fastconv::staged
