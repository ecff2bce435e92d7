// Tiles of channels-last tensors: the host's side of kernels/depthwise/slab.cuh.
#pragma once

#include <algorithm>

#include "kernels/depthwise/slab.cuh"
#include "launch/depthwise.h"
#include "launch/depthwise_tiling.h"
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

// What the kernels' launches have in common: tiles of `strips` times kStrip columns and `rows` rows of outputs (of each
// phase, where transposed), all of them staged from the source.
struct SlabShape {
  int strips, rows;
  SlabTile tile;  // of the source
  int64_t shared_bytes, slabs, column_tiles, row_tiles, blocks;

  // Source places that tiles ask for, over those there are.
  double halo(const ConvProblem& problem) const {
    const Axis source_rows = axis_of(problem, 0), source_columns = axis_of(problem, 1);
    const double staged = double(std::min(tile.rows, source_rows.source)) * row_tiles *
                          std::min(tile.columns, source_columns.source) * column_tiles;
    return std::max(staged / (double(source_rows.source) * source_columns.source), 1.0);
  }
};

// Of the tiles that all_strips and all_rows are split into evenly, and that fit, the one that is predicted fastest.
// make(strips, rows): a SlabShape, or what derives from it.
template <class Make>
auto fastest_shape(const ConvProblem& problem, int64_t all_strips, int64_t all_rows, const Make& make) {
  auto best = make(1, 1);
  double best_cost = 1e300;
  for (int64_t column_parts = 1; column_parts <= std::min<int64_t>(all_strips, 16); ++column_parts) {
    for (int64_t row_parts = 1; row_parts <= std::min<int64_t>(all_rows, 16); ++row_parts) {
      const auto shape =
          make(static_cast<int>(ceil_div(all_strips, column_parts)), static_cast<int>(ceil_div(all_rows, row_parts)));
      if (shape.shared_bytes > kSlabBlockBytes) continue;
      const double cost = slab_cost(shape.blocks, shape.halo(problem), shape.tile, problem.target);
      if (cost >= best_cost) continue;
      best = shape;
      best_cost = cost;
    }
  }
  return best;
}

// Taps of a row that the kernels are unrolled for; 0: any.
inline int unrolled_taps(const ConvProblem& problem) {
  const int taps = static_cast<int>(problem.w.sizes[3]);
  const bool dense = problem.stride[1] == 1 && problem.dilation[1] == 1;
  return dense && (taps == 3 || taps == 5 || taps == 7) ? taps : 0;
}

inline Description describe_slab(const SlabShape& shape, int slab_log2) {
  Description description;
  description.blocks = static_cast<unsigned>(shape.blocks);
  description.threads = kSlabThreads;
  description.shared_bytes = shape.shared_bytes;
  description.choices = {{"slab_chunks", 1 << slab_log2}};
  return description;
}

// Bytes asked for through a slab: those narrower than a line of 128 bytes cost a little.
inline double bytes_through_slab(double bytes, int slab_log2) {
  return bytes * (slab_log2 == 3 ? 1 : slab_log2 == 2 ? 1.03 : 1.08);
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

inline std::string why_not_shape(const SlabShape& shape, const Target& target) {
  if (shape.shared_bytes > most_shared_bytes(target)) {
    return "a tile needs " + std::to_string(shape.shared_bytes) + " bytes of shared memory, a block has " +
           std::to_string(most_shared_bytes(target));
  }
  return reason_for_blocks(shape.blocks);
}

// A configuration of a kernel whose functions take the logarithm of the slab's chunks as a second argument.
template <auto why_not, auto prepare, int slab_log2>
constexpr Way slab_way(const char* name) {
  return {name, [](const ConvProblem& problem) { return why_not(problem, slab_log2); },
          [](const ConvProblem& problem) { return prepare(problem, slab_log2); }};
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
