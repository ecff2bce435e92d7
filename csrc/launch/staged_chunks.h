// How a tensor's pixels are staged by chunks of 16 bytes: kernels/staged_conv/chunks.cuh and planes.cuh, on the host.
#pragma once

#include <cmath>
#include <numeric>

#include "kernels/staged_conv/parameters.h"
#include "launch/mma_operands.h"
#include "launch/tiling.h"

namespace fastconv::staged {

inline bool is_planes(const Operand& operand) {
  return operand.strides[3] == 1 || operand.sizes[3] == 1;
}

// Staging by chunks of so many bytes of a pixel; after the image's axes are laid out.
inline void lay_out_chunks(StagedTensor& p, int element, int pixel_bytes) {
  p.chunks = pixel_bytes / 16;
  p.chunk_lanes_log2 = 0;
  while ((1 << p.chunk_lanes_log2) < p.chunks) ++p.chunk_lanes_log2;
  p.image_columns = FastDivider<uint32_t>(p.columns.image_size);
  // A plane's rows are read from the multiple of 16 bytes on that lies before the image's first column: equally far
  // before for all tiles, which are whole eights of columns apart.
  const int block = 16 / element, before = (p.columns.origin % block + block) % block;
  const int last = p.columns.image_size - 1, period = static_cast<int>(p.columns.period.divisor());
  p.row_blocks = last < 0 ? 0 : ceil_div(before + last / period * p.columns.step + last % period + 1, block);
  p.blocks_log2 = p.row_blocks <= 1 ? 0 : p.row_blocks == 2 ? 1 : 2;
  p.first_block = p.row_blocks > 4 && (p.columns.origin - before) / block % 2 != 0;
}

// Pieces in which planes' rows are read, in bytes; 0: elements, where columns are no neighbours.
inline int plane_piece_bytes(const Operand& operand, int element) {
  if (!is_planes(operand)) return 0;
  int64_t piece = std::gcd(int64_t{16}, operand.sizes[3] * element);  // a piece is there as a whole, or not at all
  for (int i = 0; i < 3; ++i) {
    if (operand.sizes[i] > 1) piece = std::gcd(piece, operand.strides[i] * element);
  }
  return static_cast<int>(piece);
}

inline void set_strides(StagedTensor& p, const Operand& operand) {
  p.source_batch = operand.strides[0];
  p.source_channel = operand.strides[1];
  p.source_row = operand.strides[2];
  p.source_column = operand.strides[3];
}

// Where pixels lie that are staged by chunks.
inline void set_pixels(StagedTensor& p, const Operand& operand, int element) {
  set_strides(p, operand);
  p.piece_bytes = mma::piece_bytes_of(operand, 1, element);
  p.planes = p.piece_bytes == 0;
  if (p.planes) p.piece_bytes = plane_piece_bytes(operand, element);
}

inline void set_pointer(StagedTensor& p, const void* source) {
  p.source = source;
  if (p.piece_bytes != 0) p.piece_bytes = mma::piece_bytes_of(source, p.piece_bytes);
}

// Of the table of an image's rows and columns.
inline int64_t places_bytes(const Axis& rows, const Axis& columns) {
  return (int64_t{rows.image_size} + kRowsBeyond + columns.image_size) * static_cast<int>(sizeof(ImagePlace));
}

// Rounds of a warp that stage an image by chunks, 16 bytes of each lane.
inline double chunk_rounds(const StagedTensor& p, int element) {
  if (!p.planes) return std::ceil(double(p.rows.image_size) * p.columns.image_size * (1 << p.chunk_lanes_log2) / 32);
  const int64_t octets = ceil_div(p.chunks * (16 / element), 8), across = 1 << p.blocks_log2;
  return static_cast<double>(ceil_div(p.row_blocks, across) * ceil_div(p.rows.image_size, 4 / across) * octets);
}

// What each of these issues besides where 16 bytes come in pieces, or element by element: counted in the machine code
// of sm_90a, float16.
inline double piece_instructions(const StagedTensor& p) {
  return p.piece_bytes == 16 ? 0 : p.piece_bytes == 8 ? 36 : p.piece_bytes == 4 ? 53 : 49;
}

// To stage an image by chunks, where one of each lane of a warp takes as many as these.
inline double chunk_instructions(const StagedTensor& p, int element, double by_pixels, double by_planes) {
  return ((p.planes ? by_planes : by_pixels) + piece_instructions(p)) * chunk_rounds(p, element);
}

// Passes through the banks to stage an image by chunks: planes are written, read to be turned, and written again.
inline double chunk_passes(const StagedTensor& p) {
  return double(p.rows.image_size) * p.row_pitch / 128 * (p.planes ? 3 : 1);
}

}  // namespace fastconv::staged
