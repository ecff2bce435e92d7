// What of a staged tensor does not depend on the tile, noted in shared memory once a block; and what a tile sees of it.
#pragma once

#include "kernels/staged_conv/image.cuh"

namespace fastconv::staged {

__device__ __forceinline__ ImagePlace load_place(const ImagePlace* place) {
  const auto bits = ptx::load_vector<4>(reinterpret_cast<const uint32_t*>(place));
  return ptx::detail::reinterpret_bits<ImagePlace>(bits);
}

__device__ __forceinline__ void store_place(ImagePlace* to, const ImagePlace& place) {
  ptx::store_vector(reinterpret_cast<uint32_t*>(to), ptx::detail::reinterpret_bits<ptx::Vector<uint32_t, 4>>(place));
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
    store_place(table + i, noted);
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

}  // namespace fastconv::staged
