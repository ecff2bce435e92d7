// fprop and dgrad with channels innermost: the host's side of kernels/depthwise/channels_last.cuh.
#include "launch/depthwise.h"
#include "launch/depthwise_kernels.h"
#include "launch/depthwise_slab.h"

namespace fastconv::depthwise {
namespace {

struct Shape : SlabShape {
  int row_phases, column_phases;  // of the outputs
};

Shape shape_of(const ConvProblem& problem, int slab_log2) {
  const Roles roles = roles_of(problem);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  const int element = size_of(problem.dtype), slab_bytes = kChunkBytes << slab_log2;
  const int row_phases = roles.transposed ? rows.stride : 1, column_phases = roles.transposed ? columns.stride : 1;
  const int64_t taps = problem.w.sizes[2] * problem.w.sizes[3];
  const int64_t weights = taps + 1 + std::min<int64_t>(taps | 1, kTurnedTaps);
  const auto make = [&](int strips, int phase_rows) {
    Shape shape;
    shape.strips = strips;
    shape.rows = phase_rows;
    shape.row_phases = row_phases;
    shape.column_phases = column_phases;
    shape.tile = slab_tile(rows, columns, roles.transposed, phase_rows, strips, slab_log2);
    shape.shared_bytes = slab_tile_bytes(shape.tile, slab_log2) + weights * slab_bytes / element * 4;
    shape.slabs = ceil_div(problem.x.sizes[1] * element, slab_bytes);
    shape.column_tiles = ceil_div(columns.output, int64_t{strips} * kStrip * column_phases);
    shape.row_tiles = ceil_div(rows.output, int64_t{phase_rows} * row_phases);
    shape.blocks = shape.slabs * shape.column_tiles * shape.row_tiles * problem.x.sizes[0];
    return shape;
  };
  return fastest_shape(problem, ceil_div(ceil_div(columns.output, column_phases), kStrip),
                       ceil_div(rows.output, row_phases), make);
}

std::string why_not(const ConvProblem& problem, int slab_log2) {
  const std::string reason = why_not_slab(problem);
  return reason.empty() ? why_not_shape(shape_of(problem, slab_log2), problem.target) : reason;
}

ChannelsLastParameters parameters_of(const ConvProblem& problem, const Shape& shape, int slab_log2) {
  const Roles roles = roles_of(problem);
  ChannelsLastParameters p{};
  const auto& source = roles.source->strides;
  const auto& output = roles.output->strides;
  p.source_batch = source[0], p.source_row = source[2], p.source_column = source[3];
  p.output_batch = output[0], p.output_row = output[2], p.output_column = output[3];
  const auto& residual = problem.residual.strides;
  p.residual_batch = residual[0], p.residual_row = residual[2], p.residual_column = residual[3];
  p.weight_strides = weights_of(problem);
  p.rows = axis_of(problem, 0);
  p.columns = axis_of(problem, 1);
  p.transposed = roles.transposed;
  p.reversed = roles.reversed;
  p.channels = static_cast<int>(problem.x.sizes[1]);
  p.activation = problem.activation;
  p.tile = shape.tile;
  p.slab_log2 = slab_log2;
  p.strips = shape.strips;
  p.phase_rows = shape.rows;
  p.row_phases = shape.row_phases;
  p.column_phases = shape.column_phases;
  p.strips_divider = FastDivider<uint32_t>(shape.strips);
  p.phase_rows_divider = FastDivider<uint32_t>(shape.rows);
  p.column_phases_divider = FastDivider<uint32_t>(shape.column_phases);
  p.slabs = FastDivider<uint32_t>(shape.slabs);
  p.column_tiles = FastDivider<uint32_t>(shape.column_tiles);
  p.row_tiles = FastDivider<uint32_t>(shape.row_tiles);
  return p;
}

// Of a gradient with a stride, a phase has some of the taps of each row.
int fixed_taps(const ConvProblem& problem) {
  return roles_of(problem).transposed ? 0 : unrolled_taps(problem);
}

Description describe_slabs(const ConvProblem& problem, const Shape& shape, int slab_log2) {
  const Roles roles = roles_of(problem);
  Description description = describe_slab(shape, slab_log2);
  description.choices.push_back({"tile_rows", shape.rows * shape.row_phases});
  description.choices.push_back({"tile_columns", int64_t{shape.strips} * kStrip * shape.column_phases});
  const double taps = static_cast<double>(problem.w.sizes[2] * problem.w.sizes[3]);
  const double products = taps / (roles.transposed ? problem.stride[0] * problem.stride[1] : 1);
  const int fixed = fixed_taps(problem), element = size_of(problem.dtype);
  // Conversions and loads of the window; an epilogue of some instructions an output.
  const double conversions = fixed > 0 ? double(problem.w.sizes[2]) * (kStrip + fixed - 1) / kStrip : products;
  const double others = conversions * (element == 2 ? 1.2 : 0.4) + 4;
  const double outputs = static_cast<double>(shape.blocks) * (kChunkBytes << slab_log2) / element * shape.strips *
                         kStrip * shape.column_phases * shape.rows * shape.row_phases;
  const double source = static_cast<double>(roles.source->count()) * element * shape.halo(problem);
  const double written = static_cast<double>(roles.output->count()) * element * (problem.has_residual ? 2 : 1);
  describe(description, problem, outputs * products, products / (products + others),
           bytes_through_slab(source + written, slab_log2));
  return description;
}

template <typename T>
Prepared prepare_as(const ConvProblem& problem, int slab_log2) {
  const Shape shape = shape_of(problem, slab_log2);
  const ChannelsLastParameters prototype = parameters_of(problem, shape, slab_log2);
  const Description description = describe_slabs(problem, shape, slab_log2);
  const ChannelsLastKernel kernel = channels_last_kernel_of<T>(fixed_taps(problem));
  const bool is_fprop = problem.pass == ConvPass::fprop;
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, w, y, bias, residual] = arguments.pointers;
    const Roles roles = roles_of(problem);
    ChannelsLastParameters p = prototype;
    p.source = is_fprop ? x : y;
    p.weights = w;
    p.bias = problem.has_bias ? bias : nullptr;
    p.residual = problem.has_residual ? residual : nullptr;
    p.output = is_fprop ? y : x;
    p.vector_source = takes_chunks(*roles.source, p.source, sizeof(T));
    p.vector_output = takes_chunks(*roles.output, p.output, sizeof(T));
    p.vector_residual = problem.has_residual && takes_chunks(problem.residual, p.residual, sizeof(T));
    const LaunchShape launch_shape{is_fprop ? "depthwise_fprop" : "depthwise_dgrad", description.blocks,
                                   description.threads, description.shared_bytes, kSlabThreads};
    launch_kernel(launch_shape, kernel, p,
                  {{"x", x, bytes_of(problem.x, sizeof(T)), !is_fprop},
                   {"w", w, bytes_of(problem.w, sizeof(T))},
                   {"y", y, bytes_of(problem.y, sizeof(T)), is_fprop},
                   {"bias", p.bias, roles.output->sizes[1] * static_cast<int64_t>(sizeof(T))},
                   {"residual", p.residual, bytes_of(problem.residual, sizeof(T))}},
                  arguments.stream);
  };
  return {description, launch};
}

Prepared prepare(const ConvProblem& problem, int slab_log2) {
  return with_small_type(problem.dtype,
                         [&](auto type) { return prepare_as<typename decltype(type)::type>(problem, slab_log2); });
}

}  // namespace

const Way channels_last_ways[3] = {slab_way<why_not, prepare, 3>("slab8"), slab_way<why_not, prepare, 2>("slab4"),
                                   slab_way<why_not, prepare, 1>("slab2")};

}  // namespace fastconv::depthwise
