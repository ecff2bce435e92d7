// fprop and dgrad on tensor cores with W innermost: the host's side of kernels/depthwise/band.cuh.
#include "launch/depthwise.h"
#include "launch/depthwise_kernels.h"
#include "launch/depthwise_tiling.h"
#include "launch/tiling.h"

namespace fastconv::depthwise {
namespace {

struct Shape {
  int band;
  PlaneExtent extent;
  int weights_place, row_place, source_place, output_place, row_pitch, staged_rows;
  int64_t warp_bytes, tiles;
};

Shape shape_of(const ConvProblem& problem) {
  const Roles roles = roles_of(problem);
  const int element = size_of(problem.dtype);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  Shape shape;
  shape.band = band_of(columns.taps);
  const bool one_piece = is_dense(*roles.source) && is_dense(*roles.output) &&
                         (!problem.has_residual || is_dense(problem.residual)) &&
                         roles.source->sizes[1] == roles.output->sizes[1];
  const int64_t planes = roles.output->sizes[0] * roles.output->sizes[1];
  const int64_t weight_bytes = int64_t{rows.taps} * band_pitch(shape.band) * element;
  shape.extent = choose_extent({rows, false, element, columns.source, columns.output, weight_bytes}, 16, one_piece,
                               planes, problem.target);
  const auto chunks = [&](int64_t elements) { return static_cast<int>(ceil_div(elements * element, 16) * 16); };
  shape.staged_rows = static_cast<int>(ceil_div(shape.extent.strip_rows, 16) * 16 + rows.taps - 1);
  const int64_t tiles = ceil_div(columns.output, 8);
  shape.row_pitch = static_cast<int>(8 * (tiles - 1 + shape.band));
  if (shape.row_pitch / 8 % 2 == 0) shape.row_pitch += 8;
  shape.weights_place = static_cast<int>(ceil_div(shape.extent.planes * 4, 16) * 16);
  shape.row_place = shape.weights_place + chunks(int64_t{shape.extent.planes} * rows.taps * band_pitch(shape.band));
  shape.source_place = shape.row_place + chunks(int64_t{shape.staged_rows} * shape.row_pitch);
  shape.output_place = shape.source_place + chunks(shape.extent.source_elements) + kChunkBytes;
  shape.warp_bytes = shape.output_place + chunks(shape.extent.output_elements) + kChunkBytes;
  shape.tiles = ceil_div(planes, shape.extent.planes) * shape.extent.strips;
  return shape;
}

std::string why_not(const ConvProblem& problem) {
  if (size_of(problem.dtype) != 2) return "float32: the band of a filter row is multiplied in 16-bit types";
  for (int axis = 0; axis < 2; ++axis) {
    if (problem.stride[axis] != 1 || problem.dilation[axis] != 1) return "a stride or dilation other than 1";
  }
  if (band_of(static_cast<int>(problem.w.sizes[3])) > kLargestBand) {
    return "filter rows of " + std::to_string(problem.w.sizes[3]) + " taps, more than 33";
  }
  if (problem.y.sizes[3] + problem.x.sizes[3] >= 1 << 14) return "rows of 2^14 elements or more";
  const std::string reason = planes_way.why_not(problem);
  // What that kernel's rows need in shared memory is another number.
  if (!reason.empty() && reason.rfind("rows need", 0) != 0) return reason;
  const Shape shape = shape_of(problem);
  if (shape.warp_bytes * kPlaneWarps > most_shared_bytes(problem.target)) {
    return "rows need " + std::to_string(shape.warp_bytes * kPlaneWarps) + " bytes of shared memory, a block has " +
           std::to_string(most_shared_bytes(problem.target));
  }
  return reason_for_blocks(ceil_div(shape.tiles, kPlaneWarps));
}

BandParameters parameters_of(const ConvProblem& problem, const Shape& shape) {
  const Roles roles = roles_of(problem);
  BandParameters all{};
  PlanesParameters& p = all.planes;
  p.source_strides = plane_of(*roles.source);
  p.output_strides = plane_of(*roles.output);
  if (problem.has_residual) p.residual_strides = plane_of(problem.residual);
  p.weight_strides = weights_of(problem);
  p.rows = axis_of(problem, 0);
  p.columns = axis_of(problem, 1);
  p.reversed = roles.reversed;
  p.multiplier = FastDivider<uint32_t>(roles.output->sizes[1] / roles.source->sizes[1]);
  p.tiling = tiling_of(shape.extent, *roles.output);
  p.activation = problem.activation;
  p.source_place = shape.source_place;
  p.output_place = shape.output_place;
  p.warp_bytes = static_cast<int>(shape.warp_bytes);
  all.row_place = shape.row_place;
  all.row_pitch = shape.row_pitch;
  all.staged_rows = shape.staged_rows;
  all.weights_place = shape.weights_place;
  return all;
}

// Clocks of a multiprocessor for one tap row of 32 x 32 outputs: products, or fragments out of shared memory, whichever
// takes longer. The tiles of a smaller plane are fewer and fuller.
double clocks_of_row(int band, const Target& target) {
  int products = 0;
  for (int t = 0; t < kBandColumns; ++t) {
    for (int j = 0; j <= (band + 1) / 2; ++j) products += 2 * j - t + 1 >= 0 && 2 * j - t + 1 < band;
  }
  const int loads = kBandRows * ((band + 1) / 2 + 1);
  return std::max(clocks_of_product(target) * kBandRows * products, 4.0 * loads + 2.0 * (band + 1));
}

Description describe_band(const ConvProblem& problem, const Shape& shape) {
  const Roles roles = roles_of(problem);
  const int element = size_of(problem.dtype);
  Description description;
  description.blocks = static_cast<unsigned>(ceil_div(shape.tiles, kPlaneWarps));
  description.threads = kPlaneThreads;
  description.shared_bytes = shape.warp_bytes * kPlaneWarps;
  description.choices = {{"planes", shape.extent.planes}, {"rows", shape.extent.strip_rows}, {"band", shape.band}};
  const double outputs = static_cast<double>(roles.output->count());
  const double bytes = static_cast<double>(shape.tiles) * shape.extent.source_elements * element +
                       outputs * element * (problem.has_residual ? 2 : 1);
  // Beside them, turning and finishing take some instructions an output.
  const double computed = static_cast<double>(shape.tiles) * shape.extent.planes *
                          ceil_div(shape.extent.strip_rows, 16) * 16 * ceil_div(roles.output->sizes[3], 8) * 8;
  const double clocks = static_cast<double>(problem.w.sizes[2]) * clocks_of_row(shape.band, problem.target);
  const double per_output = in_multiply_adds(clocks, problem) / (32 * 32);
  describe(description, problem, computed * per_output + outputs * 24, 1, bytes);
  return description;
}

template <typename T>
Prepared prepare_as(const ConvProblem& problem) {
  const Shape shape = shape_of(problem);
  const BandParameters prototype = parameters_of(problem, shape);
  const Description description = describe_band(problem, shape);
  const BandKernel kernel = band_kernel_of<T>(shape.band);
  auto launch = [=](const LaunchArguments& arguments) {
    BandParameters all = prototype;
    launch_planes<T>(problem, description, all, all.planes, kernel, arguments);
  };
  return {description, launch};
}

Prepared prepare(const ConvProblem& problem) {
  if (problem.dtype == DataType::float16) return prepare_as<Half>(problem);
  return prepare_as<BFloat16>(problem);
}

}  // namespace

const Way band_way{"band", why_not, prepare};

}  // namespace fastconv::depthwise
