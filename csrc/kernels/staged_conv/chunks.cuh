// Pixels that are chunks of 16 bytes on their way to shared memory, copied as they are: channels_last.
#pragma once

#include "kernels/mma_conv/copy.cuh"
#include "kernels/staged_conv/image_places.cuh"
#include "ptx/keep.h"

namespace fastconv::staged {

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
