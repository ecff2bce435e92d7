// wgrad on tensor cores with W innermost: the host's side of kernels/depthwise/band_wgrad.cuh.
#include "launch/depthwise_wgrad.h"
#include "launch/tiling.h"

namespace fastconv::depthwise {
namespace {

struct Shape {
  int tiles;  // of kBandWgradTiles
  int steps;
  WgradPieces pieces;
  int gradients_place, gradients_pitch, line_place, line_elements;
  int64_t warp_bytes, groups_of_row, tap_groups, blocks;
};

Shape shape_of(const ConvProblem& problem) {
  const int element = size_of(problem.dtype);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  Shape shape;
  shape.tiles = rows.taps > 16 * kBandWgradTiles[0].rows || columns.taps > 8 * kBandWgradTiles[0].columns;
  const BandWgradTiles tiles = kBandWgradTiles[shape.tiles];
  const int64_t group_rows = 16 * tiles.rows, group_columns = 8 * tiles.columns;
  shape.groups_of_row = ceil_div(columns.taps, group_columns);
  shape.tap_groups = shape.groups_of_row * ceil_div(rows.taps, group_rows);
  shape.pieces = WgradPieces::of(problem, shape.tap_groups);
  const auto chunks = [&](int64_t elements) { return ceil_div(elements * element, kChunkBytes) * kChunkBytes; };
  shape.steps = band_wgrad_steps(columns.output);
  shape.gradients_pitch = 16 * shape.steps + 8;  // an odd number of chunks
  shape.line_elements = static_cast<int>(16 * shape.steps + group_columns);
  shape.gradients_place = static_cast<int>(shape.pieces.warp_bytes);
  shape.line_place = static_cast<int>(shape.gradients_place + int64_t{kZeroRows + shape.pieces.extent.strip_rows} *
                                                                  shape.gradients_pitch * element);
  shape.warp_bytes = std::max(shape.line_place + chunks(2 * shape.line_elements),
                              ceil_div(band_wgrad_totals(tiles.rows, tiles.columns) * 4, kChunkBytes) * kChunkBytes);
  shape.blocks = problem.y.sizes[1] * shape.tap_groups * shape.pieces.splits;
  return shape;
}

std::string why_not(const ConvProblem& problem) {
  if (size_of(problem.dtype) != 2) return "float32: products are those of 16-bit types";
  for (int axis = 0; axis < 2; ++axis) {
    if (problem.stride[axis] != 1 || problem.dilation[axis] != 1) return "a stride or dilation other than 1";
  }
  if (problem.y.sizes[3] + problem.x.sizes[3] >= 1 << 14) return "rows of 2^14 elements or more";
  const std::string reason = why_not_pieces(problem);
  if (!reason.empty()) return reason;
  const Shape shape = shape_of(problem);
  return why_not_blocks(problem, shape.pieces, shape.warp_bytes, shape.blocks);
}

BandWgradParameters parameters_of(const ConvProblem& problem, const Shape& shape) {
  BandWgradParameters all{};
  all.planes = shape.pieces.parameters(problem, shape.tap_groups, shape.groups_of_row, shape.warp_bytes);
  all.gradients_place = shape.gradients_place;
  all.gradients_pitch = shape.gradients_pitch;
  all.gradient_rows = shape.pieces.extent.strip_rows;
  all.line_place = shape.line_place;
  all.line_elements = shape.line_elements;
  return all;
}

Description describe_band(const ConvProblem& problem, const Shape& shape, const Parts& parts) {
  Description description = shape.pieces.description(shape.tap_groups, shape.blocks, shape.warp_bytes, parts);
  const BandWgradTiles tiles = kBandWgradTiles[shape.tiles];
  description.choices.push_back({"tap_rows", 16 * tiles.rows});
  description.choices.push_back({"tap_columns", 8 * tiles.columns});
  const double images = static_cast<double>(problem.y.sizes[1] * shape.pieces.pieces * shape.pieces.extent.planes);
  const double source_rows = images * static_cast<double>(shape.tap_groups) *
                             static_cast<double>(shape.pieces.extent.source_elements / problem.x.sizes[3]);
  // Clocks of a multiprocessor for products, or for fragments out of shared memory, whichever takes longer; and
  // instructions of a row.
  const double step = std::max(clocks_of_product(problem.target) * tiles.rows * tiles.columns, 4.0 * tiles.rows + 4.0);
  const double row = in_multiply_adds(step * shape.steps, problem) +
                     32 * (40 + 12.0 * static_cast<double>(ceil_div(problem.x.sizes[3], 32)));
  const double gradients = static_cast<double>(problem.y.count()) * static_cast<double>(shape.tap_groups);
  const double reads = shape.pieces.bytes(problem) * static_cast<double>(shape.tap_groups);
  describe(description, problem, source_rows * row + 16 * gradients, 1, reads + 2.0 * parts.bytes);
  return description;
}

template <typename T>
Prepared prepare_as(const ConvProblem& problem) {
  const Shape shape = shape_of(problem);
  const Parts parts = Parts::of(problem, shape.pieces.splits);
  const BandWgradParameters prototype = parameters_of(problem, shape);
  const Description description = describe_band(problem, shape, parts);
  const BandWgradKernel kernel = band_wgrad_kernel_of<T>(shape.tiles);
  auto launch = [=](const LaunchArguments& arguments) {
    BandWgradParameters all = prototype;
    launch_pieces<T>(problem, parts, description, all, all.planes, kernel, arguments);
  };
  return {description, launch};
}

Prepared prepare(const ConvProblem& problem) {
  if (problem.dtype == DataType::float16) return prepare_as<Half>(problem);
  return prepare_as<BFloat16>(problem);
}

}  // namespace

const Way band_wgrad_way{"band", why_not, prepare};

}  // namespace fastconv::depthwise
