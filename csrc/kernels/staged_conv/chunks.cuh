// Pixels that are chunks of 16 bytes on their way to shared memory, copied as they are: channels_last.
#pragma once

#include "kernels/mma_conv/copy.cuh"
#include "kernels/staged_conv/image.cuh"
#include "ptx/keep.h"

namespace fastconv::staged {

__device__ __forceinline__ ImagePlace load_place(const ImagePlace* place) {
  const auto bits = ptx::load_vector<4>(reinterpret_cast<const uint32_t*>(place));
  return ptx::detail::reinterpret_bits<ImagePlace>(bits);
}

// table: the image's rows, kRowsBeyond more, and its columns.
template <class Element>
__device__ __forceinline__ void note_places(const StagedTensor& tensor, ImagePlace* table) {
  constexpr int kNowhere = -(1 << 30);
  const int rows = tensor.rows.image_size + kRowsBeyond;
  for (int i = threadIdx.x; i < rows + tensor.columns.image_size; i += kThreads) {
    const bool is_row = i < rows;
    const Axis& axis = is_row ? tensor.rows : tensor.columns;
    const int place = is_row ? i : i - rows;
    const int source = source_place(axis, 0, place) - axis.origin;
    const ImagePlace noted{
        source * (is_row ? tensor.source_row : tensor.source_column) * static_cast<int>(sizeof(Element)),
        is_row && place >= axis.image_size ? kNowhere : source,
        is_row ? place * tensor.row_pitch : column_place(tensor, place)};
    ptx::store_vector(reinterpret_cast<uint32_t*>(table + i),
                      ptx::detail::reinterpret_bits<ptx::Vector<uint32_t, 4>>(noted));
  }
}

// What a tile sees of a staged tensor begins here.
template <class Element>
struct TileSource {
  int row, column;
  const unsigned char* first;  // of the first channel that is staged; where it lies before the tensor, it is not read

  __device__ __forceinline__ TileSource(const StagedTensor& tensor, const Tile& tile, int channel)
      : row(tensor.rows.origin + tile.row * tensor.rows.step),
        column(tensor.columns.origin + tile.column * tensor.columns.step),
        first(reinterpret_cast<const unsigned char*>(
            static_cast<const Element*>(tensor.source) + tile.batch * tensor.source_batch +
            channel * tensor.source_channel + row * tensor.source_row + column * tensor.source_column)) {}
};

// A lane has one chunk of pixels that are equally far apart, so that it steps from one to the next. image: its first
// byte; table: see note_places. The copies are under way.
template <class Element>
__device__ __forceinline__ void stage_chunks(const StagedTensor& tensor, const ImagePlace* table, const Tile& tile,
                                             unsigned char* image, int first_channel) {
  constexpr int kChunk = 16 / sizeof(Element);
  const TileSource<Element> source(tensor, tile, first_channel);
  const ImagePlace* const columns = table + tensor.rows.image_size + kRowsBeyond;
  const int thread = ptx::keep(static_cast<int>(threadIdx.x)), chunk = thread & ((1 << tensor.chunk_lanes_log2) - 1);
  if (chunk >= tensor.chunks) return;
  const int left = (tensor.all_channels - first_channel - chunk * kChunk) * static_cast<int>(sizeof(Element));
  const int bytes = max(0, min(16, left));
  const unsigned char* const first = source.first + 16 * chunk;
  uint32_t x = thread >> tensor.chunk_lanes_log2, step_x = kThreads >> tensor.chunk_lanes_log2;
  uint32_t y = tensor.image_columns.split(x);
  const uint32_t step_y = tensor.image_columns.split(step_x);
  image += 16 * chunk;
  const auto stage = [&](const auto& copy) {
    while (y < static_cast<uint32_t>(tensor.rows.image_size)) {
      const ImagePlace row = load_place(table + y), column = load_place(columns + x);
      const bool exists = tensor.rows.has(source.row + row.source) && tensor.columns.has(source.column + column.source);
      copy(image + row.place + column.place, first + row.offset + column.offset, exists ? bytes : 0);
      x += step_x;
      y += step_y;
      if (x >= tensor.image_columns.divisor()) {
        x -= tensor.image_columns.divisor();
        ++y;
      }
    }
  };
  if (tensor.piece_bytes == 16) {  // all 16 bytes are there, or none
    stage([](void* to, const void* from, int there) { ptx::copy_async<16>(to, from, there != 0 ? 16 : 0); });
  } else {
    const int pieces = tensor.piece_bytes;
    stage([pieces](void* to, const void* from, int there) { mma::copy_chunk_in_pieces(to, from, there, pieces); });
  }
}

}  // namespace fastconv::staged
