// Planes (NCHW) on their way to shared memory, where pixels are chunks of channels: a warp takes 16 bytes of rows of
// eight channels each, and turns them through a scratch of its own.
#pragma once

#include "kernels/staged_conv/chunks.cuh"
#include "ptx/keep.h"
#include "ptx/ldmatrix.h"

namespace fastconv::staged {

constexpr int kOctet = 8;   // channels that a warp takes at once, and of each
constexpr int kBlocks = 4;  // times 16 bytes, side by side or, where the image is narrow, in several rows
constexpr int kSlots = 4;   // what a warp takes before it turns the first

// In 32 bits the last four channels lie half a turn of the banks further.
template <class Element>
inline constexpr int kSlotBytes = 512 + (sizeof(Element) == 4 ? 64 : 0);

template <class Element>
inline constexpr int kScratchBytes = kThreads / 32 * kSlots * kSlotBytes<Element>;

// 16 bytes of a row, of which `bytes` are there; whole: all or none.
template <class Element, bool whole>
__device__ __forceinline__ void copy_block(const StagedTensor& tensor, unsigned char* to, const unsigned char* from,
                                           int bytes) {
  if constexpr (whole) {
    ptx::copy_async<16>(to, from, bytes != 0 ? 16 : 0);
    return;
  }
  if (tensor.piece_bytes != 0) {
    mma::copy_chunk_in_pieces(to, from, bytes, tensor.piece_bytes);
    return;
  }
  constexpr int kBlock = 16 / sizeof(Element);
  ptx::Vector<Element, kBlock> values;
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const bool exists = i * static_cast<int>(sizeof(Element)) < bytes;
    values[i] = exists ? reinterpret_cast<const Element*>(from)[i * tensor.source_column] : Element{};
  }
  ptx::store_vector(reinterpret_cast<Element*>(to), values);
}

// Where a lane writes what it holds of one block: seen from the item's first row, in bytes. Where there is no such
// pixel or channel in the image, no row is early enough.
struct BlockPlace {
  int place, last_row;
};

// pixel: of the row of blocks that the image's row lies in, whose first column is `frame`. below: rows from the item's
// first.
__device__ __forceinline__ BlockPlace block_place(const StagedTensor& tensor, int pixel, int below) {
  uint32_t inside = static_cast<uint32_t>(pixel);
  const int period = static_cast<int>(tensor.columns.source_period.split(inside));
  const int of_period = static_cast<int>(tensor.columns.period.divisor());
  const bool exists = pixel >= 0 && static_cast<int>(inside) < of_period &&
                      period * of_period + static_cast<int>(inside) < tensor.columns.image_size;
  return {period * (of_period * tensor.column_pitch + tensor.column_gap) +
              static_cast<int>(inside) * tensor.column_pitch + below * tensor.row_pitch,
          exists ? tensor.rows.image_size - 1 - below : -1};
}

// The row's block that comes at place i. A row that begins in the middle of a sector is read from the next on, and
// its first block with the last ones.
__device__ __forceinline__ int row_block(const StagedTensor& tensor, int i, int across) {
  const int all = (tensor.row_blocks + across - 1) & -across, block = i + tensor.first_block;
  return block < all ? block : block - all;
}

// Which pixel of four blocks and which of an octet's two chunks a lane of 32 bits writes, so that eight lanes side by
// side write to different banks.
struct LanePixel {
  int pixel, chunk;
};

// are_pairs: whether every other pixel begins in its neighbour's bank.
__device__ __forceinline__ LanePixel lane_pixel(const StagedTensor& tensor, int lane, bool are_pairs) {
  const int period_bytes = static_cast<int>(tensor.columns.period.divisor()) * tensor.column_pitch + tensor.column_gap;
  if (period_bytes / 16 % 2 != 0) {  // eight pixels' chunks
    return {are_pairs ? (lane & 7) << 1 | (lane >> 3 & 1) : lane & 15, lane >> 4};
  }
  const int four = lane & 3, rest = lane >> 3;  // four pixels' two chunks
  return {are_pairs ? four << 1 | (rest & 1) | (rest & 2) << 2 : four | rest << 2, lane >> 2 & 1};
}

// image: its first byte; table: see note_places; scratch: kScratchBytes. A warp needs no other for this.
template <class Element, bool whole>
__device__ __forceinline__ void stage_planes(const StagedTensor& tensor, const ImagePlace* table, const Tile& tile,
                                             unsigned char* image, unsigned char* scratch, int first_channel) {
  constexpr int kSize = sizeof(Element), kBlock = 16 / kSize, kSlot = kSlotBytes<Element>;
  constexpr int kStores = kSize == 2 ? kBlocks : 1;  // of a lane for an item
  // What only staging needs is computed for each tile: registers that keep sums meanwhile have no room for it.
  const int thread = ptx::keep(static_cast<int>(threadIdx.x)), warp = thread / 32, lane = thread & 31;
  const TileSource<Element> source(tensor, tile, first_channel);
  const int before = source.column & (kBlock - 1);  // columns of the first block that the image does not have
  const int across_log2 = ptx::keep(tensor.blocks_log2), across = 1 << across_log2, item_rows = kBlocks >> across_log2;
  const int octets = (ptx::keep(tensor.chunks) * kBlock + kOctet - 1) / kOctet;
  // Warps share the octets, and the rows where there are fewer octets.
  const int octet_warps = octets >= 4 ? 4 : octets >= 2 ? 2 : 1;
  const int step = kThreads / 32 / octet_warps * item_rows;
  scratch += warp * kSlots * kSlot;

  // What the lane copies: eight lanes side by side write 128 bytes.
  const int copied_block = kSize == 2 ? lane / 8 : lane % 4, copied_channel = kSize == 2 ? lane % 8 : lane / 4;
  unsigned char* const copied = scratch + lane * 16 + (kSize == 4 && lane >= 16 ? 64 : 0);
  const ImagePlace* const rows = table + (copied_block >> across_log2);
  // What it writes: in 16 bits two channels of a pixel of each block, else four channels of one pixel.
  const bool are_pairs = tensor.columns.period.divisor() % 2 == 0 && tensor.column_pitch % 128 == 0;
  // Then lanes of every other pixel write the blocks of a pair the other way round, half the banks away.
  const int of_image = lane / 4 - before, turn = are_pairs && across > 1 ? (of_image ^ of_image >> 3) & 1 : 0;
  const LanePixel wide = lane_pixel(tensor, lane, are_pairs);
  const unsigned char* const turned = scratch + (kSize == 2 ? lane * 16 : wide.chunk * (4 * 64 + 64) + wide.pixel * 4);

#pragma unroll 1
  for (int first = 0; first < tensor.row_blocks; first += across) {
    const int block = row_block(tensor, first + (copied_block & (across - 1)), across);
    const int column = source.column - before + block * kBlock;
    const int columns = block < tensor.row_blocks && column >= 0 ? tensor.columns.source_size - column : 0;
    const int column_bytes = max(0, min(16, columns * kSize));
    BlockPlace places[kStores];
#pragma unroll
    for (int j = 0; j < kStores; ++j) {
      const int its_block = kSize == 2 ? j ^ turn : wide.pixel / kBlock;
      const int its_pixel = kSize == 2 ? lane / 4 : wide.pixel % kBlock;
      const int in_row = row_block(tensor, first + (its_block & (across - 1)), across);
      places[j] = block_place(tensor, in_row * kBlock + its_pixel - before, its_block >> across_log2);
      places[j].place += kSize == 2 ? lane % 4 * 4 : wide.chunk * 16;
    }
#pragma unroll 1
    for (int octet = warp % octet_warps; octet < octets; octet += octet_warps) {
      const int channel = octet * kOctet + copied_channel;
      const int bytes = channel < tensor.all_channels - first_channel ? column_bytes : 0;
      const unsigned char* const from =
          source.first + (channel * tensor.source_channel + (block * kBlock - before) * tensor.source_column) * kSize;
      unsigned char* const to = image + octet * kOctet * kSize;
      const bool has_chunk = kSize == 2 || octet * 2 + wide.chunk < tensor.chunks;
#pragma unroll 1
      for (int first_row = warp / octet_warps * item_rows; first_row < tensor.rows.image_size;
           first_row += kSlots * step) {
#pragma unroll(whole ? kSlots : 1)
        for (int slot = 0; slot < kSlots; ++slot) {
          const int y = first_row + slot * step;
          if (y >= tensor.rows.image_size) break;
          const ImagePlace row = load_place(rows + y);
          const bool exists = tensor.rows.has(source.row + row.source);
          copy_block<Element, whole>(tensor, copied + slot * kSlot, from + row.offset, exists ? bytes : 0);
        }
        ptx::commit_async_copies();
        ptx::wait_async_copies<0>();
        __syncwarp();
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
          const int y = first_row + slot * step;
          if (y >= tensor.rows.image_size) break;
          unsigned char* const row = to + y * tensor.row_pitch;
          if constexpr (kSize == 2) {
            uint32_t words[kBlocks];
            ptx::load_matrices<4, true>(words, turned + slot * kSlot);
#pragma unroll
            for (int j = 0; j < kBlocks; ++j) {
              const uint32_t word = turn != 0 ? words[j ^ 1] : words[j];
              if (y <= places[j].last_row) *reinterpret_cast<uint32_t*>(row + places[j].place) = word;
            }
          } else {
            ptx::Vector<uint32_t, 4> chunk;
#pragma unroll
            for (int i = 0; i < 4; ++i) chunk[i] = *reinterpret_cast<const uint32_t*>(turned + slot * kSlot + i * 64);
            if (has_chunk && y <= places[0].last_row) {
              ptx::store_vector(reinterpret_cast<uint32_t*>(row + places[0].place), chunk);
            }
          }
        }
        __syncwarp();  // the next copies come into the same scratch
      }
    }
  }
}

// A tile's image of a tensor in either layout, complete for the thread that returns.
template <class Element>
__device__ __forceinline__ void stage_pixels(const StagedTensor& tensor, const ImagePlace* table, const Tile& tile,
                                             unsigned char* image, unsigned char* scratch, int first_channel) {
  if (!tensor.planes) {
    stage_chunks<Element>(tensor, table, tile, image, first_channel);
  } else if (tensor.piece_bytes == 16) {
    stage_planes<Element, true>(tensor, table, tile, image, scratch, first_channel);
  } else {
    stage_planes<Element, false>(tensor, table, tile, image, scratch, first_channel);
  }
  ptx::commit_async_copies();
  ptx::wait_async_copies<0>();
}

}  // namespace fastconv::staged
