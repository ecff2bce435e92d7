// wgrad with channels innermost: the host's side of kernels/depthwise/channels_last_wgrad.cuh.
#include "launch/depthwise_slab.h"
#include "launch/depthwise_wgrad.h"

namespace fastconv::depthwise {
namespace {

struct Shape : SlabShape {
  SlabTile dy_tile;
  int64_t tiles, tiles_of_split, splits;
  int64_t taps_of_group, groups_of_row, groups, block_groups, lanes, group_blocks;
};

Shape shape_with(const ConvProblem& problem, int slab_log2, int strips, int tile_rows) {
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  const int element = size_of(problem.dtype), slab_bytes = kChunkBytes << slab_log2, chunk = kChunkBytes / element;
  Shape shape;
  shape.strips = strips;
  shape.rows = tile_rows;
  shape.tile = slab_tile(rows, columns, false, tile_rows, strips, slab_log2);
  Axis own_rows = rows, own_columns = columns;  // dy is read in place
  for (Axis* axis : {&own_rows, &own_columns}) axis->taps = axis->stride = axis->dilation = 1;
  shape.dy_tile = slab_tile(own_rows, own_columns, false, tile_rows, strips, slab_log2);
  const int fixed = unrolled_taps(problem);
  shape.taps_of_group = fixed > 0 ? fixed : kTapsOfThread;
  shape.groups_of_row = ceil_div(columns.taps, shape.taps_of_group);
  shape.groups = shape.groups_of_row * rows.taps;
  const int64_t workers = kSlabThreads >> slab_log2;
  shape.group_blocks = ceil_div(shape.groups, workers);
  shape.block_groups = ceil_div(shape.groups, shape.group_blocks);
  shape.lanes = workers / shape.block_groups;
  const int64_t turned = (shape.taps_of_group + 1) * chunk * kSlabThreads * 4;
  shape.shared_bytes =
      std::max(slab_tile_bytes(shape.tile, slab_log2) + slab_tile_bytes(shape.dy_tile, slab_log2), turned);
  shape.slabs = ceil_div(problem.x.sizes[1] * element, slab_bytes);
  shape.column_tiles = ceil_div(columns.output, int64_t{strips} * kStrip);
  shape.row_tiles = ceil_div(rows.output, tile_rows);
  shape.tiles = problem.x.sizes[0] * shape.row_tiles * shape.column_tiles;
  // As many splits as fill the device, where a split's sums are small beside what it reads.
  const int64_t whole = shape.slabs * shape.group_blocks;
  const int64_t tile_bytes =
      (int64_t{shape.tile.rows} * shape.tile.columns + int64_t{shape.dy_tile.rows} * shape.dy_tile.columns) *
      slab_bytes;
  const int64_t part_bytes = int64_t{2} * 4 * rows.taps * columns.taps * slab_bytes / element;
  const int64_t filling = std::max<int64_t>(shape.tiles * whole / (int64_t{3} * problem.target.multiprocessors), 1);
  const int64_t accurate = std::max<int64_t>(4096 * shape.lanes / (int64_t{strips} * kStrip * tile_rows), 1);
  const int64_t cheap = ceil_div(20 * part_bytes, tile_bytes);
  shape.tiles_of_split = std::min({std::max(filling, cheap), accurate, shape.tiles});
  shape.tiles_of_split = std::max(shape.tiles_of_split, ceil_div(shape.tiles, Parts::most_splits(problem)));
  shape.splits = ceil_div(shape.tiles, shape.tiles_of_split);
  shape.blocks = whole * shape.splits;
  return shape;
}

Shape shape_of(const ConvProblem& problem, int slab_log2) {
  const auto make = [&](int strips, int rows) { return shape_with(problem, slab_log2, strips, rows); };
  return fastest_shape(problem, ceil_div(problem.y.sizes[3], kStrip), problem.y.sizes[2], make);
}

std::string why_not(const ConvProblem& problem, int slab_log2) {
  const std::string reason = why_not_slab(problem);
  if (!reason.empty()) return reason;
  const Shape shape = shape_of(problem, slab_log2);
  return shape.tiles >= int64_t{1} << 30 ? "2^30 tiles or more" : why_not_shape(shape, problem.target);
}

ChannelsLastWgradParameters parameters_of(const ConvProblem& problem, const Shape& shape, int slab_log2) {
  ChannelsLastWgradParameters p{};
  const auto& x = problem.x.strides;
  const auto& dy = problem.y.strides;
  p.x_batch = x[0], p.x_row = x[2], p.x_column = x[3];
  p.dy_batch = dy[0], p.dy_row = dy[2], p.dy_column = dy[3];
  p.dw_strides = weights_of(problem);
  p.rows = axis_of(problem, 0);
  p.columns = axis_of(problem, 1);
  p.channels = static_cast<int>(problem.x.sizes[1]);
  p.x_tile = shape.tile;
  p.dy_tile = shape.dy_tile;
  p.slab_log2 = slab_log2;
  p.strips = shape.strips;
  p.tile_rows = shape.rows;
  p.strips_divider = FastDivider<uint32_t>(shape.strips);
  p.column_tiles = FastDivider<uint32_t>(shape.column_tiles);
  p.row_tiles = FastDivider<uint32_t>(shape.row_tiles);
  p.tiles = static_cast<int>(shape.tiles);
  p.tiles_of_split = static_cast<int>(shape.tiles_of_split);
  p.block_groups = static_cast<int>(shape.block_groups);
  p.lanes = static_cast<int>(shape.lanes);
  p.lanes_divider = FastDivider<uint32_t>(shape.lanes);
  p.groups_of_row = FastDivider<uint32_t>(shape.groups_of_row);
  p.groups = static_cast<int>(shape.groups);
  p.slabs = FastDivider<uint32_t>(shape.slabs);
  p.group_blocks = FastDivider<uint32_t>(shape.group_blocks);
  return p;
}

Description describe_slabs(const ConvProblem& problem, const Shape& shape, const Parts& parts, int slab_log2) {
  Description description = describe_slab(shape, slab_log2);
  description.workspace_bytes = parts.bytes;
  description.choices.push_back({"tile_rows", shape.rows});
  description.choices.push_back({"tile_columns", int64_t{shape.strips} * kStrip});
  description.choices.push_back({"tap_groups", shape.groups});
  description.choices.push_back({"splits", shape.splits});
  const int fixed = unrolled_taps(problem), element = size_of(problem.dtype);
  const double taps = static_cast<double>(shape.groups * shape.taps_of_group);
  const double conversions =
      double(shape.groups) * (1 + (fixed > 0 ? double(kStrip + fixed - 1) / kStrip : double(kTapsOfThread)));
  const double others = conversions * (element == 2 ? 1.2 : 0.4) + 2;
  const double busy = double(shape.lanes * shape.block_groups) / (kSlabThreads >> slab_log2);
  const double outputs = static_cast<double>(problem.y.sizes[0]) * shape.row_tiles * shape.rows * shape.column_tiles *
                         shape.strips * kStrip * shape.slabs * (kChunkBytes << slab_log2) / element;
  const double reads =
      (static_cast<double>(problem.x.count()) * shape.halo(problem) + problem.y.count()) * element * shape.group_blocks;
  describe(description, problem, outputs * taps, busy * taps / (taps + others),
           bytes_through_slab(reads, slab_log2) + 2.0 * parts.bytes);
  return description;
}

template <typename T>
Prepared prepare_as(const ConvProblem& problem, int slab_log2) {
  const Shape shape = shape_of(problem, slab_log2);
  const Parts parts = Parts::of(problem, shape.splits);
  const ChannelsLastWgradParameters prototype = parameters_of(problem, shape, slab_log2);
  const Description description = describe_slabs(problem, shape, parts, slab_log2);
  const ChannelsLastWgradKernel kernel = channels_last_wgrad_kernel_of<T>(unrolled_taps(problem));
  auto launch = [=](const LaunchArguments& arguments) {
    ChannelsLastWgradParameters p = prototype;
    p.vector_x = takes_chunks(problem.x, arguments.pointers[0], sizeof(T));
    p.vector_dy = takes_chunks(problem.y, arguments.pointers[2], sizeof(T));
    // Parts [splits, R, S, C]: the filter is innermost.
    Operand dw;
    dw.sizes = {1, problem.w.sizes[0], problem.w.sizes[2], problem.w.sizes[3]};
    dw.strides = {1, problem.w.strides[0], problem.w.strides[2], problem.w.strides[3]};
    launch_wgrad<T>(problem, parts, description, p, p, kernel, kSlabThreads, dw, arguments);
  };
  return {description, launch};
}

Prepared prepare(const ConvProblem& problem, int slab_log2) {
  return with_small_type(problem.dtype,
                         [&](auto type) { return prepare_as<typename decltype(type)::type>(problem, slab_log2); });
}

}  // namespace

const Way channels_last_wgrad_ways[3] = {slab_way<why_not, prepare, 3>("slab8"), slab_way<why_not, prepare, 2>("slab4"),
                                         slab_way<why_not, prepare, 1>("slab2")};

}  // namespace fastconv::depthwise
