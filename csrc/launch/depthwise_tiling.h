// How much of a tensor a warp or block of the depthwise kernels takes.
#pragma once

#include <algorithm>
#include <numeric>

#include "kernels/depthwise/planes.cuh"
#include "launch/tiling.h"

namespace fastconv::depthwise {

// Bytes of small images that a warp takes at a time; of their weights, and of images with the room around each, of
// which there would be more than a block has where images are smaller than filters.
constexpr int64_t kPieceBytes = 4 * 1024, kPieceWeightBytes = 12 * 1024, kPieceRoomBytes = 16 * 1024;

// Whether a correlation along rows reads no further over their ends than kPlaneGuard, with a lane's second column.
inline bool stays_within_guard(const Axis& columns) {
  const int last = (columns.output - 1) * columns.stride - columns.offset + columns.taps - 1;
  return columns.offset >= 0 && columns.offset <= kPlaneGuard && last - (columns.source - 1) <= kPlaneGuard - 2;
}

// What a block may ask for.
inline int64_t most_shared_bytes(const Target& target) {
  switch (target.capability) {
    case 80:
    case 87:
      return 163 * 1024;
    case 90:
    case 100:
      return 227 * 1024;
    default:
      return 99 * 1024;
  }
}

inline Plane plane_of(const Operand& operand) {
  return {operand.strides[0], operand.strides[1], static_cast<int>(operand.strides[2]),
          static_cast<int>(operand.strides[3])};
}

// A warp's share: `planes` whole planes, or `strip_rows` output rows of one.
struct PlaneExtent {
  int planes, strip_rows, strips;
  int64_t source_elements, output_elements;  // at most
};

struct PlaneSizes {
  Axis rows;
  bool transposed;
  int element;  // bytes
  int64_t source_width, output_width;
  int64_t weight_bytes;  // of a plane, in shared memory
};

// Source rows that this many output rows read.
inline int64_t source_rows(const PlaneSizes& sizes, int64_t outputs) {
  const int64_t reach = int64_t{sizes.rows.taps - 1} * sizes.rows.dilation;
  const int64_t rows =
      sizes.transposed ? (outputs - 1 + reach) / sizes.rows.stride + 1 : (outputs - 1) * sizes.rows.stride + reach + 1;
  return std::min<int64_t>(rows, sizes.rows.source);
}

// group_rows: outputs of a lane; one_piece: planes follow each other without gaps in all operands.
inline PlaneExtent choose_extent(const PlaneSizes& sizes, int group_rows, bool one_piece, int64_t planes,
                                 const Target& target) {
  constexpr int64_t kBatchBytes = kPieceBytes, kStripBytes = 12 * 1024;
  constexpr int64_t kWarpsPerMultiprocessor = 16;
  const int64_t rows = sizes.rows.output, element = sizes.element;
  const auto bytes = [&](int64_t outputs) {
    return (source_rows(sizes, outputs) * sizes.source_width + outputs * sizes.output_width) * element;
  };
  // Pieces of outputs that begin at whole chunks.
  const auto granularity = [&](int64_t elements) { return 16 / std::gcd<int64_t>(16, elements * element); };
  PlaneExtent extent;
  extent.planes = 1;
  const int64_t plane_bytes = (sizes.rows.source * sizes.source_width + rows * sizes.output_width) * element;
  const int64_t warps = kWarpsPerMultiprocessor * target.multiprocessors;
  int64_t strip = rows;
  if (one_piece && plane_bytes <= kBatchBytes) {
    const int64_t step = granularity(rows * sizes.output_width);
    const int64_t most = std::min({kBatchBytes / plane_bytes, std::max<int64_t>(planes / warps, step), planes});
    extent.planes = static_cast<int>(std::max<int64_t>(most / step * step, std::min(step, planes)));
    if (plane_bytes * extent.planes > 4 * kBatchBytes) extent.planes = 1;
    if (sizes.weight_bytes * extent.planes > kPieceWeightBytes) {
      extent.planes = static_cast<int>(std::max<int64_t>(kPieceWeightBytes / sizes.weight_bytes / step * step, 1));
    }
  } else if (plane_bytes > kStripBytes || planes < warps) {
    const int64_t step = std::lcm<int64_t>(granularity(sizes.output_width), group_rows);
    const int64_t reach = int64_t{sizes.rows.taps - 1} * sizes.rows.dilation;
    // Enough for few halos, then as few as fill the device.
    const int64_t least = std::max<int64_t>(4 * reach / std::max(sizes.transposed ? 1 : sizes.rows.stride, 1), 4);
    const int64_t wanted = std::max(least, ceil_div(rows * planes, warps));
    strip = step;
    while (strip + step <= wanted && bytes(strip + step) <= kStripBytes) strip += step;
    strip = std::min(strip, rows);
    const int64_t strips = ceil_div(rows, strip);
    strip = std::min(ceil_div(ceil_div(rows, strips), step) * step, rows);
  }
  extent.strip_rows = static_cast<int>(strip);
  extent.strips = static_cast<int>(ceil_div(rows, strip));
  const bool whole = extent.planes > 1;
  extent.source_elements = extent.planes * (whole ? sizes.rows.source : source_rows(sizes, strip)) * sizes.source_width;
  extent.output_elements = extent.planes * strip * sizes.output_width;
  return extent;
}

// Where a lane's group of lanes reads and writes: elements from group to group.
struct GroupPitch {
  int64_t source, output;
};

// The most words that one bank is asked for where groups of `columns` lanes are `pitch` elements apart, lanes `step`
// elements, whatever the first address is.
inline int bank_passes(int groups, int columns, int64_t pitch, int step, int element) {
  int most = 1;
  for (int lead = 0; lead < 4 / element; ++lead) {
    int64_t words[kWarp];
    int lanes = 0;
    for (int group = 0; group < groups; ++group) {
      for (int column = 0; column < columns; ++column) {
        words[lanes++] = (lead + group * pitch + int64_t{column} * step) * element / 4;
      }
    }
    std::sort(words, words + lanes);
    int in_bank[32] = {};
    for (int i = 0; i < lanes; ++i) {
      if (i == 0 || words[i] != words[i - 1]) most = std::max(most, ++in_bank[words[i] % 32]);
    }
  }
  return most;
}

// How lanes share the walks over `planes` pieces of `rows` x `columns` steps; plane: elements from piece to piece, row:
// from step to step. Chosen: the least time, where a pass through the banks costs as much as some products.
struct WalkSizes {
  int planes;
  int64_t rows, columns;
  GroupPitch plane, row;
  int source_step, output_step;  // elements from lane to lane
  int open;                      // steps that a walk takes beyond its outputs
  double products, loads;        // of a step
};

inline LaneGroups choose_lanes(const WalkSizes& sizes, int element) {
  const int64_t turns = ceil_div(sizes.columns, kWarp);
  const int columns = static_cast<int>(ceil_div(sizes.columns, turns));
  LaneGroups best;
  best.columns = FastDivider<uint32_t>(columns);
  best.groups = 1;
  best.rows = static_cast<int>(sizes.rows);
  double best_cost = 1e300;
  for (int groups = kWarp / columns; groups >= 1; --groups) {
    for (int64_t rows = sizes.rows; rows >= std::min<int64_t>(sizes.rows, 2); --rows) {
      const int64_t strips = ceil_div(sizes.rows, rows);
      if (strips > 1 && strips > 4 * groups) break;  // more halos for nothing
      // Strips of a plane follow each other, then planes: the distances are equal where one of the two is 1.
      const bool by_strips = strips > 1;
      if (by_strips && strips % groups != 0) continue;
      const int64_t source_pitch = by_strips ? rows * sizes.row.source : sizes.plane.source;
      const int64_t output_pitch = by_strips ? rows * sizes.row.output : sizes.plane.output;
      const int reads = bank_passes(groups, columns, source_pitch, sizes.source_step, element);
      const int writes = bank_passes(groups, columns, output_pitch, sizes.output_step, element);
      const double walks = static_cast<double>(ceil_div(sizes.planes * strips, groups) * turns);
      const double step = sizes.products + sizes.loads * (2 + 2 * reads) + 8 + 4 * writes;
      const double cost = walks * static_cast<double>(rows + sizes.open) * step;
      if (cost >= best_cost * 0.999) continue;
      best_cost = cost;
      best.groups = groups;
      best.rows = static_cast<int>(rows);
    }
  }
  best.strips = FastDivider<uint32_t>(ceil_div(sizes.rows, best.rows));
  return best;
}

inline PlaneTiling tiling_of(const PlaneExtent& extent, const Operand& output) {
  PlaneTiling tiling;
  tiling.planes = output.sizes[0] * output.sizes[1];
  tiling.planes_of_tile = extent.planes;
  tiling.strip_rows = extent.strip_rows;
  tiling.strips = FastDivider<uint32_t>(extent.strips);
  tiling.channels = FastDivider<uint32_t>(output.sizes[1]);
  return tiling;
}

}  // namespace fastconv::depthwise
