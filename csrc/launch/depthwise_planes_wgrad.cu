// wgrad with W innermost: the host's side of kernels/depthwise/planes_wgrad.cuh.
#include "launch/depthwise_tiling.h"
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
  PlaneExtent extent;  // planes: images of a piece
  int64_t x_pitch, dy_pitch, dy_place, warp_bytes;
  int64_t groups_of_row, tap_groups, pieces, pieces_of_split, splits, blocks;
};

Shape shape_of(const ConvProblem& problem) {
  const int element = size_of(problem.dtype);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  const int64_t images = problem.x.sizes[0], filters = problem.y.sizes[1];
  Shape shape;
  shape.filter = filter_of(problem);
  const bool fixed = kWgradFilters[shape.filter].rows > 0;
  const PlaneSizes sizes{rows, false, element, int64_t{columns.source}, int64_t{columns.output}};
  // Images of one channel do not follow each other: as many as make a piece that is worth a warp's turn.
  shape.extent = choose_extent(sizes, 1, false, images * filters, problem.target);
  const int64_t bytes = (shape.extent.source_elements + shape.extent.output_elements) * element;
  if (shape.extent.strips == 1) {
    shape.extent.planes = static_cast<int>(std::max<int64_t>(std::min(kPieceBytes / bytes, images), 1));
  }
  const int64_t chunk = kChunkBytes / element;
  const auto room = [&](int64_t elements) { return ceil_div(elements, chunk) * chunk + chunk; };
  shape.x_pitch = room(shape.extent.source_elements) + 2 * kPlaneGuard;
  shape.dy_pitch = room(shape.extent.output_elements);
  shape.dy_place = shape.extent.planes * shape.x_pitch * element;
  shape.warp_bytes = shape.dy_place + shape.extent.planes * shape.dy_pitch * element;
  const WgradFilterSizes& piece = kWgradFilters[shape.filter];
  const int64_t group_rows = fixed ? piece.rows : 1, group_columns = fixed ? piece.columns : kTapsOfWarp;
  shape.warp_bytes = std::max(shape.warp_bytes, ceil_div((group_rows * group_columns + 1) * 4, 16) * 16);
  shape.groups_of_row = ceil_div(columns.taps, group_columns);
  shape.tap_groups = shape.groups_of_row * ceil_div(rows.taps, group_rows);
  shape.pieces = ceil_div(images, shape.extent.planes) * shape.extent.strips;
  const int64_t wanted = ceil_div(8 * problem.target.multiprocessors, filters * shape.tap_groups);
  const int64_t most = std::max<int64_t>(shape.pieces / kPlaneWarps, 1);
  shape.pieces_of_split = ceil_div(shape.pieces, std::min(wanted, most));
  // float32 sums: a lane adds at most some thousands of terms.
  const int64_t terms = ceil_div(shape.extent.output_elements, kPlaneThreads);
  shape.pieces_of_split = std::max<int64_t>(std::min(shape.pieces_of_split, 4096 / terms), 1);
  shape.splits = ceil_div(shape.pieces, shape.pieces_of_split);
  shape.blocks = filters * shape.tap_groups * shape.splits;
  return shape;
}

std::string why_not(const ConvProblem& problem) {
  if (!has_dense_planes(problem.x) || !has_dense_planes(problem.y)) {
    return "the planes of x or dy have gaps: this kernel takes NCHW with dense planes";
  }
  for (const Operand* operand : {&problem.x, &problem.y}) {
    if (operand->sizes[2] * operand->sizes[3] >= int64_t{1} << 30) return "2^30 elements of a plane or more";
  }
  const Shape shape = shape_of(problem);
  if (shape.pieces >= int64_t{1} << 30) return "2^30 pieces of images or more";
  if (shape.warp_bytes * kPlaneWarps > most_shared_bytes(problem.target)) {
    return "rows need " + std::to_string(shape.warp_bytes * kPlaneWarps) + " bytes of shared memory, a block has " +
           std::to_string(most_shared_bytes(problem.target));
  }
  return reason_for_blocks(shape.blocks);
}

PlanesWgradParameters parameters_of(const ConvProblem& problem, const Shape& shape) {
  PlanesWgradParameters p{};
  p.x_strides = plane_of(problem.x);
  p.dy_strides = plane_of(problem.y);
  p.dw_strides = weights_of(problem);
  p.rows = axis_of(problem, 0);
  p.columns = axis_of(problem, 1);
  p.multiplier = FastDivider<uint32_t>(problem.y.sizes[1] / problem.x.sizes[1]);
  p.output_columns = FastDivider<uint32_t>(p.columns.output);
  p.output_rows = FastDivider<uint32_t>(p.rows.output);
  const WgradFilterSizes& sizes = kWgradFilters[shape.filter];
  const int stride = std::max(sizes.stride, 1), wide = 4 / size_of(problem.dtype);  // columns of a lane
  WalkSizes walk;
  walk.planes = shape.extent.planes;
  walk.rows = shape.extent.strip_rows;
  walk.columns = ceil_div(p.columns.output, wide);
  walk.plane = {shape.x_pitch, shape.dy_pitch};
  walk.row = {int64_t{p.columns.source} * stride, p.columns.output};
  walk.source_step = wide * stride;
  walk.output_step = wide;
  walk.open = (sizes.rows - 1) / stride;
  walk.products = sizes.rows * sizes.columns * wide;
  walk.loads = (sizes.columns + wide - 1) * stride;
  p.lanes = choose_lanes(walk, size_of(problem.dtype));
  p.images = static_cast<int>(problem.x.sizes[0]);
  p.images_of_piece = shape.extent.planes;
  p.strip_rows = shape.extent.strip_rows;
  p.strips = FastDivider<uint32_t>(shape.extent.strips);
  p.pieces = static_cast<int>(shape.pieces);
  p.pieces_of_split = static_cast<int>(shape.pieces_of_split);
  p.filters = FastDivider<uint32_t>(problem.y.sizes[1]);
  p.tap_groups = FastDivider<uint32_t>(shape.tap_groups);
  p.groups_of_row = FastDivider<uint32_t>(shape.groups_of_row);
  p.x_pitch = static_cast<int>(shape.x_pitch);
  p.dy_pitch = static_cast<int>(shape.dy_pitch);
  p.dy_place = static_cast<int>(shape.dy_place);
  p.warp_bytes = static_cast<int>(shape.warp_bytes);
  return p;
}

Description describe_planes(const ConvProblem& problem, const Shape& shape, const Parts& parts) {
  const int element = size_of(problem.dtype);
  Description description;
  description.blocks = static_cast<unsigned>(shape.blocks);
  description.threads = kPlaneThreads;
  description.shared_bytes = shape.warp_bytes * kPlaneWarps;
  description.workspace_bytes = parts.bytes;
  description.choices = {{"images", shape.extent.planes},
                         {"rows", shape.extent.strip_rows},
                         {"tap_groups", shape.tap_groups},
                         {"splits", shape.splits}};
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
  const double reads = static_cast<double>(problem.y.sizes[1] * shape.pieces * shape.extent.planes) *
                       (shape.extent.source_elements + shape.extent.output_elements) * element * shape.tap_groups;
  describe(description, problem, outputs * products, products / (products + others), reads + 2.0 * parts.bytes);
  return description;
}

template <typename T>
Prepared prepare_as(const ConvProblem& problem) {
  const Shape shape = shape_of(problem);
  const Parts parts = Parts::of(problem, shape.splits);
  const PlanesWgradParameters prototype = parameters_of(problem, shape);
  const Description description = describe_planes(problem, shape, parts);
  const PlanesWgradKernel kernel = planes_wgrad_kernel_of<T>(shape.filter);
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, w, y, bias, residual] = arguments.pointers;
    PlanesWgradParameters p = prototype;
    p.x = x;
    p.x_end = static_cast<const char*>(x) + bytes_of(problem.x, sizeof(T));
    p.dy = y;
    p.dy_end = static_cast<const char*>(y) + bytes_of(problem.y, sizeof(T));
    p.dw = w;
    p.db = problem.has_bias ? bias : nullptr;
    p.parts = parts.sums(arguments.workspace);
    p.bias_parts = parts.bias_sums(arguments.workspace);
    const LaunchShape launch_shape{"depthwise_wgrad", description.blocks, description.threads, description.shared_bytes,
                                   kPlaneThreads};
    launch_kernel(launch_shape, kernel, p,
                  {{"x", x, bytes_of(problem.x, sizeof(T))},
                   {"w", w, bytes_of(problem.w, sizeof(T)), true},
                   {"y", y, bytes_of(problem.y, sizeof(T))},
                   {"bias", p.db, problem.w.sizes[0] * static_cast<int64_t>(sizeof(T)), true},
                   {"workspace", p.parts, parts.bytes, true}},
                  arguments.stream);
    // Parts [splits, K, 1, R, S]: the filter is outermost.
    Operand dw;
    dw.sizes = {problem.w.sizes[0], 1, problem.w.sizes[2], problem.w.sizes[3]};
    dw.strides = {problem.w.strides[0], 1, problem.w.strides[2], problem.w.strides[3]};
    add_parts<T>(problem, parts, dw, arguments);
  };
  return {description, launch};
}

Prepared prepare(const ConvProblem& problem) {
  return with_small_type(problem.dtype, [&](auto type) { return prepare_as<typename decltype(type)::type>(problem); });
}

}  // namespace

const Way planes_wgrad_way{"planes", why_not, prepare};

}  // namespace fastconv::depthwise
