// fprop and dgrad with W innermost: the host's side of kernels/depthwise/planes.cuh.
#include <numeric>

#include "launch/depthwise.h"
#include "launch/depthwise_kernels.h"
#include "launch/depthwise_tiling.h"
#include "launch/tiling.h"

namespace fastconv::depthwise {
namespace {

int filter_of(const ConvProblem& problem) {
  const Roles roles = roles_of(problem);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  const int any = roles.transposed ? kAnyTransposedPlaneFilter : kAnyPlaneFilter;
  if (rows.dilation != 1 || columns.dilation != 1 || rows.stride != columns.stride) return any;
  for (int i = 0; i < kAnyPlaneFilter; ++i) {
    const PlaneFilterSizes& sizes = kPlaneFilters[i];
    // The gradient without a stride is a correlation like fprop.
    if (sizes.transposed != roles.transposed || sizes.rows != rows.taps || sizes.columns != columns.taps ||
        sizes.stride != rows.stride) {
      continue;
    }
    if (sizes.transposed && (rows.offset != rows.taps / 2 || columns.offset != columns.taps / 2)) continue;
    Axis read = columns;  // along columns, as a correlation of stride 1 where transposed
    if (sizes.transposed) {
      read.output = (columns.output + 1) / 2;
      read.stride = 1;
      read.offset = columns.taps / 4;
      read.taps = columns.taps / 4 + (columns.taps + 1) / 4 + 1;
    }
    if (!stays_within_guard(read)) continue;
    return i;
  }
  return any;
}

// Pieces begin at even rows where a step makes two.
int group_rows(int filter) {
  return kPlaneFilters[filter].rows > 0 && kPlaneFilters[filter].transposed ? 2 : 1;
}

bool is_tall(const ConvProblem& problem, int filter) {
  return filter == kAnyPlaneFilter && problem.stride[0] == 1 && problem.dilation[0] == 1 && problem.w.sizes[2] >= kTall;
}

// See kernels/depthwise/walk.cuh. Where two columns of a lane are read and written as one word, rows are even.
bool is_centered(const ConvProblem& problem, int filter) {
  const Roles roles = roles_of(problem);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  if (kPlaneFilters[filter].rows == 0 || rows.offset != rows.taps / 2 || columns.offset != columns.taps / 2)
    return false;
  const int last = columns.output - 1;
  if ((roles.transposed ? last / 2 : last * columns.stride) >= columns.source) return false;
  if (roles.transposed) return columns.output % 2 == 0;
  return size_of(problem.dtype) == 4 || (columns.output % 2 == 0 && columns.source % 2 == 0);
}

struct Shape {
  int filter;
  PlaneExtent extent;
  int source_place, output_place, weight_pitch;
  int64_t warp_bytes, tiles;
};

Shape shape_of(const ConvProblem& problem) {
  const Roles roles = roles_of(problem);
  const int element = size_of(problem.dtype);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  Shape shape;
  shape.filter = filter_of(problem);
  const bool one_piece = is_dense(*roles.source) && is_dense(*roles.output) &&
                         (!problem.has_residual || is_dense(problem.residual)) &&
                         roles.source->sizes[1] == roles.output->sizes[1];
  const int64_t planes = roles.output->sizes[0] * roles.output->sizes[1];
  const int taps = rows.taps * columns.taps;
  shape.weight_pitch = static_cast<int>(ceil_div(taps + 1, 4) * 4);
  const PlaneSizes sizes{rows, roles.transposed, element, columns.source, columns.output, shape.weight_pitch * 4};
  shape.extent = choose_extent(sizes, group_rows(shape.filter), one_piece, planes, problem.target);
  const int64_t weights = int64_t{shape.extent.planes} * shape.weight_pitch * 4;
  const int64_t guard = int64_t{kPlaneGuard} * element, chunk = kChunkBytes;
  shape.source_place = static_cast<int>(weights);
  const int64_t source = ceil_div(shape.extent.source_elements * element, chunk) * chunk + chunk;
  shape.output_place = static_cast<int>(weights + guard + source + guard);
  shape.warp_bytes = shape.output_place + ceil_div(shape.extent.output_elements * element, chunk) * chunk + chunk;
  shape.tiles = ceil_div(planes, shape.extent.planes) * shape.extent.strips;
  return shape;
}

std::string why_not(const ConvProblem& problem) {
  const Roles roles = roles_of(problem);
  if (problem.pass == ConvPass::dgrad && problem.x.sizes[1] != problem.y.sizes[1]) {
    return "a channel multiplier of " + std::to_string(problem.y.sizes[1] / problem.x.sizes[1]) +
           ": the gradient by input takes 1";
  }
  if (!has_dense_planes(*roles.source) || !has_dense_planes(*roles.output)) {
    return "the planes of x or y have gaps: this kernel takes NCHW with dense planes";
  }
  if (problem.has_residual && !has_dense_planes(problem.residual)) {
    return "the planes of the residual have gaps: this kernel takes NCHW with dense planes";
  }
  for (const Operand* operand : {roles.source, roles.output}) {
    if (operand->sizes[2] * operand->sizes[3] >= int64_t{1} << 30) return "2^30 elements of a plane or more";
  }
  const Shape shape = shape_of(problem);
  if (shape.warp_bytes * kPlaneWarps > most_shared_bytes(problem.target)) {
    return "rows need " + std::to_string(shape.warp_bytes * kPlaneWarps) + " bytes of shared memory, a block has " +
           std::to_string(most_shared_bytes(problem.target));
  }
  return reason_for_blocks(ceil_div(shape.tiles, kPlaneWarps));
}

LaneGroups lanes_of(const ConvProblem& problem, const Shape& shape) {
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  const PlaneFilterSizes& sizes = kPlaneFilters[shape.filter];
  const int step = group_rows(shape.filter), element = size_of(problem.dtype);
  const int wide = sizes.transposed ? 2 : 4 / element;  // columns of a lane
  WalkSizes walk;
  walk.planes = shape.extent.planes;
  walk.rows = ceil_div(shape.extent.strip_rows, step);
  walk.columns = ceil_div(columns.output, wide);
  walk.plane = {int64_t{rows.source} * columns.source, int64_t{rows.output} * columns.output};
  walk.row = {int64_t{columns.source} * std::max(sizes.transposed ? 1 : sizes.stride, 1),
              int64_t{columns.output} * step};
  walk.source_step = sizes.transposed ? 1 : wide * std::max(sizes.stride, 1);
  walk.output_step = wide;
  walk.open = sizes.transposed ? sizes.rows / 2 : (sizes.rows - 1) / std::max(sizes.stride, 1);
  walk.products = sizes.rows * sizes.columns * (sizes.transposed ? 1 : wide);
  walk.loads = sizes.transposed ? (sizes.columns + 1) / 2 : (sizes.columns + wide - 1) * std::max(sizes.stride, 1);
  return choose_lanes(walk, element);
}

PlanesParameters parameters_of(const ConvProblem& problem, const Shape& shape) {
  const Roles roles = roles_of(problem);
  PlanesParameters p{};
  p.source_strides = plane_of(*roles.source);
  p.output_strides = plane_of(*roles.output);
  if (problem.has_residual) p.residual_strides = plane_of(problem.residual);
  p.weight_strides = weights_of(problem);
  p.rows = axis_of(problem, 0);
  p.columns = axis_of(problem, 1);
  p.transposed = roles.transposed;
  p.centered = is_centered(problem, shape.filter);
  p.reversed = roles.reversed;
  p.multiplier = FastDivider<uint32_t>(roles.output->sizes[1] / roles.source->sizes[1]);
  p.output_columns = FastDivider<uint32_t>(p.columns.output);
  p.tall = is_tall(problem, shape.filter);
  p.output_rows = FastDivider<uint32_t>(p.tall ? ceil_div(p.rows.output, kTall) : p.rows.output);
  p.lanes = lanes_of(problem, shape);
  p.tiling = tiling_of(shape.extent, *roles.output);
  p.activation = problem.activation;
  p.weight_pitch = shape.weight_pitch;
  p.source_place = shape.source_place;
  p.output_place = shape.output_place;
  p.warp_bytes = static_cast<int>(shape.warp_bytes);
  return p;
}

Description describe_planes(const ConvProblem& problem, const Shape& shape) {
  const Roles roles = roles_of(problem);
  const int element = size_of(problem.dtype);
  Description description;
  description.blocks = static_cast<unsigned>(ceil_div(shape.tiles, kPlaneWarps));
  description.threads = kPlaneThreads;
  description.shared_bytes = shape.warp_bytes * kPlaneWarps;
  description.choices = {{"planes", shape.extent.planes}, {"rows", shape.extent.strip_rows}};
  // Instructions of an output beside its products: loads, conversions and masks of the window, and the epilogue.
  const PlaneFilterSizes& sizes = kPlaneFilters[shape.filter];
  const double taps = static_cast<double>(problem.w.sizes[2] * problem.w.sizes[3]);
  double products = taps / (roles.transposed ? problem.stride[0] * problem.stride[1] : 1), others;
  if (sizes.rows == 0) {
    others = roles.transposed ? 20 * taps : is_tall(problem, shape.filter) ? 1.5 * taps : 11 * taps;
  } else {
    // A step loads, converts and masks a row of the window, and moves a few things on: as the disassembly counts.
    const double loads = sizes.transposed ? (sizes.columns + 1) / 8.0 : double(sizes.columns) * sizes.stride;
    others = element == 2 ? loads + 5 : 2 * loads + 4;
    if (!is_centered(problem, shape.filter)) others += loads + sizes.rows + 6;
    if (!is_walk_unrolled(sizes.rows, sizes.columns, sizes.stride, 4 / element)) others += sizes.rows;
  }
  // Staging, storing, and what the ends of a walk take.
  others += 8;
  const double outputs = static_cast<double>(roles.output->count());
  const double bytes = static_cast<double>(shape.tiles) * shape.extent.source_elements * element +
                       outputs * element * (problem.has_residual ? 2 : 1);
  describe(description, problem, outputs * products, products / (products + others), bytes);
  return description;
}

template <typename T>
Prepared prepare_as(const ConvProblem& problem) {
  const Shape shape = shape_of(problem);
  const PlanesParameters prototype = parameters_of(problem, shape);
  const Description description = describe_planes(problem, shape);
  const PlanesKernel kernel = planes_kernel_of<T>(shape.filter);
  auto launch = [=](const LaunchArguments& arguments) {
    PlanesParameters p = prototype;
    launch_planes<T>(problem, description, p, p, kernel, arguments);
  };
  return {description, launch};
}

Prepared prepare(const ConvProblem& problem) {
  return with_small_type(problem.dtype, [&](auto type) { return prepare_as<typename decltype(type)::type>(problem); });
}

}  // namespace

const Way planes_way{"planes", why_not, prepare};

}  // namespace fastconv::depthwise
