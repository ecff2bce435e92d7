// Tiles of channels-last tensors: the host's side of kernels/depthwise/slab.cuh.
#pragma once

#include <algorithm>

#include "kernels/depthwise/slab.cuh"
#include "launch/tiling.h"

namespace fastconv::depthwise {

// Shared memory that tiles are chosen within, so that three blocks share a multiprocessor.
constexpr int64_t kSlabBlockBytes = 72 * 1024;

// What `phase_rows` x `strips` outputs (of each phase, where transposed) read.
inline SlabTile slab_tile(const Axis& rows, const Axis& columns, bool transposed, int phase_rows, int strips,
                          int slab_log2) {
  const auto extent = [&](const Axis& axis, int outputs) {
    const int reach = (axis.taps - 1) * axis.dilation;
    return transposed ? outputs + (reach + 2 * axis.stride - 2) / axis.stride : (outputs - 1) * axis.stride + reach + 1;
  };
  SlabTile tile;
  tile.rows = extent(rows, phase_rows);
  tile.columns = extent(columns, strips * kStrip);
  tile.row_phases = transposed ? 1 : rows.stride;
  tile.column_phases = transposed ? 1 : columns.stride;
  tile.row_phase_pitch = static_cast<int>(ceil_div(tile.rows, tile.row_phases));
  tile.column_phase_pitch = static_cast<int>(ceil_div(tile.columns, tile.column_phases));
  // From a row to the next, eight threads go on as along the row: a multiple of 8 chunks from where the row would.
  tile.pitch = tile.column_phase_pitch * tile.column_phases;
  const int cycle = 8 >> slab_log2;
  while ((tile.pitch - strips * kStrip) % cycle != 0) ++tile.pitch;
  tile.columns_divider = FastDivider<uint32_t>(tile.columns);
  tile.row_phases_divider = FastDivider<uint32_t>(tile.row_phases);
  tile.column_phases_divider = FastDivider<uint32_t>(tile.column_phases);
  return tile;
}

inline int64_t slab_tile_bytes(const SlabTile& tile, int slab_log2) {
  return int64_t{tile.row_phase_pitch} * tile.row_phases * tile.pitch * (int64_t{kChunkBytes} << slab_log2);
}

// To compare tiles: what is read, over the share of the device that is busy. Blocks have fixed costs like some rows.
inline double slab_cost(int64_t blocks, double halo, const SlabTile& tile, const Target& target) {
  const int64_t at_once = int64_t{3} * target.multiprocessors;
  const double waves = static_cast<double>(ceil_div(blocks, at_once) * at_once) / static_cast<double>(blocks);
  const double places = double(tile.rows) * tile.columns;
  return (halo + 1) * std::max(waves, 1.0) * (1 + 32 / (places + 32));
}

inline std::string why_not_slab(const ConvProblem& problem) {
  if (problem.x.sizes[1] != problem.y.sizes[1]) {
    return "a channel multiplier of " + std::to_string(problem.y.sizes[1] / problem.x.sizes[1]) +
           ": channels-last kernels take 1";
  }
  for (const Operand* operand : {&problem.x, &problem.y, &problem.residual}) {
    if (operand == &problem.residual && !problem.has_residual) continue;
    if (operand->strides[1] != 1 && operand->sizes[1] > 1) {
      return "channels of x, y or the residual are not neighbours: this kernel takes channels_last";
    }
  }
  return "";
}

// Whether all chunks of 16 bytes of channels are whole and aligned.
inline bool takes_chunks(const Operand& operand, const void* pointer, int64_t element) {
  const int64_t chunk = kChunkBytes / element;
  if (reinterpret_cast<uintptr_t>(pointer) % kChunkBytes != 0 || operand.sizes[1] % chunk != 0) return false;
  for (int i : {0, 2, 3}) {
    if (operand.sizes[i] > 1 && operand.strides[i] % chunk != 0) return false;
  }
  return true;
}

}  // namespace fastconv::depthwise
