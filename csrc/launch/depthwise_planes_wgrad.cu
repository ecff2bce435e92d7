// wgrad with W innermost: the host's side of kernels/depthwise/planes_wgrad.cuh.
#include "launch/depthwise_wgrad.h"
#include "launch/tiling.h"

namespace fastconv::depthwise {
namespace {

constexpr int kAny = kWgradFilterCount - 1, kPiece = kWgradFilterCount - 2;

int filter_of(const ConvProblem& problem) {
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  if (rows.dilation != 1 || columns.dilation != 1 || rows.stride != columns.stride) return kAny;
  if (!stays_within_guard(columns)) return kAny;
  for (int i = 0; i < kPiece; ++i) {
    const WgradFilterSizes& sizes = kWgradFilters[i];
    if (sizes.rows == rows.taps && sizes.columns == columns.taps && sizes.stride == rows.stride) return i;
  }
  return rows.stride == 1 && rows.taps >= kWgradFilters[kPiece].rows / 2 ? kPiece : kAny;
}

struct Shape {
  int filter;
  WgradPieces pieces;
  int64_t warp_bytes, groups_of_row, tap_groups, blocks;
};

Shape shape_of(const ConvProblem& problem) {
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  Shape shape;
  shape.filter = filter_of(problem);
  const WgradFilterSizes& piece = kWgradFilters[shape.filter];
  const bool fixed = piece.rows > 0;
  const int64_t group_rows = fixed ? piece.rows : 1, group_columns = fixed ? piece.columns : kTapsOfWarp;
  shape.groups_of_row = ceil_div(columns.taps, group_columns);
  shape.tap_groups = shape.groups_of_row * ceil_div(rows.taps, group_rows);
  shape.pieces = WgradPieces::of(problem, shape.tap_groups);
  shape.warp_bytes = std::max(shape.pieces.warp_bytes, ceil_div((group_rows * group_columns + 1) * 4, 16) * 16);
  shape.blocks = problem.y.sizes[1] * shape.tap_groups * shape.pieces.splits;
  return shape;
}

std::string why_not(const ConvProblem& problem) {
  const std::string reason = why_not_pieces(problem);
  if (!reason.empty()) return reason;
  const Shape shape = shape_of(problem);
  return why_not_blocks(problem, shape.pieces, shape.warp_bytes, shape.blocks);
}

PlanesWgradParameters parameters_of(const ConvProblem& problem, const Shape& shape) {
  PlanesWgradParameters p = shape.pieces.parameters(problem, shape.tap_groups, shape.groups_of_row, shape.warp_bytes);
  const WgradFilterSizes& sizes = kWgradFilters[shape.filter];
  const int stride = std::max(sizes.stride, 1), wide = 4 / size_of(problem.dtype);  // columns of a lane
  WalkSizes walk;
  walk.planes = shape.pieces.extent.planes;
  walk.rows = shape.pieces.extent.strip_rows;
  walk.columns = ceil_div(p.columns.output, wide);
  walk.plane = {shape.pieces.x_pitch, shape.pieces.dy_pitch};
  walk.row = {int64_t{p.columns.source} * stride, p.columns.output};
  walk.source_step = wide * stride;
  walk.output_step = wide;
  walk.open = (sizes.rows - 1) / stride;
  walk.products = sizes.rows * sizes.columns * wide;
  walk.loads = (sizes.columns + wide - 1) * stride;
  p.lanes = choose_lanes(walk, size_of(problem.dtype));
  return p;
}

Description describe_planes(const ConvProblem& problem, const Shape& shape, const Parts& parts) {
  const int element = size_of(problem.dtype);
  Description description = shape.pieces.description(shape.tap_groups, shape.blocks, shape.warp_bytes, parts);
  const WgradFilterSizes& sizes = kWgradFilters[shape.filter];
  double products = static_cast<double>(problem.w.sizes[2] * problem.w.sizes[3]), others = 15 * products;
  if (shape.filter == kPiece) {
    products = 16.0 * static_cast<double>(shape.tap_groups);
    others = (element == 2 ? 1.3 : 2) * products;
  } else if (sizes.rows > 0) {
    others = (element == 2 ? 1.5 : 2) * double(sizes.columns) * sizes.stride + sizes.rows + 8;
  }
  others += 6;
  const double outputs = static_cast<double>(problem.y.count());
  const double reads = shape.pieces.bytes(problem) * static_cast<double>(shape.tap_groups);
  describe(description, problem, outputs * products, products / (products + others), reads + 2.0 * parts.bytes);
  return description;
}

template <typename T>
Prepared prepare_as(const ConvProblem& problem) {
  const Shape shape = shape_of(problem);
  const Parts parts = Parts::of(problem, shape.pieces.splits);
  const PlanesWgradParameters prototype = parameters_of(problem, shape);
  const Description description = describe_planes(problem, shape, parts);
  const PlanesWgradKernel kernel = planes_wgrad_kernel_of<T>(shape.filter);
  auto launch = [=](const LaunchArguments& arguments) {
    PlanesWgradParameters p = prototype;
    launch_pieces<T>(problem, parts, description, p, p, kernel, arguments);
  };
  return {description, launch};
}

Prepared prepare(const ConvProblem& problem) {
  return with_small_type(problem.dtype, [&](auto type) { return prepare_as<typename decltype(type)::type>(problem); });
}

}  // namespace

const Way planes_wgrad_way{"planes", why_not, prepare};

}  // namespace fastconv::depthwise
