#include "launch/direct_conv.h"

#include <numeric>

#include "common/cost.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

constexpr int kThreadsLog2 = 7;
static_assert(kDirectConvThreads == 1 << kThreadsLog2, "the block's threads are split by powers of two");

// Lanes take turns over column phases up to this stride; beyond it a block has one phase.
constexpr int kMostLanePhases = 8;
// Of staged weights: enough for few barriers, and for the outputs that use the same memory in the end.
constexpr int kStagedBytes = 16 * 1024;

int tile_number(const std::string& config) {
  for (int i = 0; i < 3; ++i) {
    if (config == kDirectConvTiles[i].name) return i;
  }
  throw std::invalid_argument("config is '" + config + "', but must be one of direct convolution's tiles");
}

// The pass as the kernel sees it: from `input` to `output`.
struct Roles {
  const Operand* input;
  const Operand* output;
  int weight_output_dimension;  // of w, which has the output's channels
  int64_t reduced_channels;     // of a group
  int64_t group_outputs;
};

Roles roles_of(const ConvProblem& problem) {
  bool is_fprop = problem.pass == ConvPass::fprop;
  int64_t filters = problem.w.sizes[0] / problem.groups, channels = problem.w.sizes[1];
  if (is_fprop) return {&problem.x, &problem.y, 0, channels, filters};
  return {&problem.y, &problem.x, 1, filters, channels};
}

// Sizes of the launch, in 64 bits whatever the kernel's index is.
struct Shape {
  int64_t pixels, phase_rows, phase_columns;
  int64_t chunks_per_group, chunks;
  int pixel_threads_log2, filter_threads_log2;
  bool pixels_are_fastest;
  int lane_phases, column_block_phases, row_phases;
  int64_t filter_blocks, pixel_blocks;
  int block_filters;
  int stage_rows, stage_columns, stage_channels;
  int64_t shared_bytes;

  int64_t blocks() const { return filter_blocks * pixel_blocks * column_block_phases * row_phases; }
};

// Outputs that are equal modulo this have the same taps. Images in padding have taps of other classes, so in mapped
// dgrad all outputs are one class, which tries all taps.
int phase_stride(const ConvProblem& problem, int axis) {
  bool is_phased = problem.pass == ConvPass::dgrad && problem.is_zero_padded();
  return is_phased ? problem.stride[axis] : 1;
}

// The number of such classes that have outputs.
int phases(const ConvProblem& problem, int axis) {
  int64_t outputs = std::max<int64_t>(roles_of(problem).output->sizes[2 + axis], 1);
  return static_cast<int>(std::min<int64_t>(phase_stride(problem, axis), outputs));
}

int tap_step(const ConvProblem& problem, int axis) {
  if (phase_stride(problem, axis) == 1) return 1;
  return problem.stride[axis] / std::gcd(problem.stride[axis], problem.dilation[axis]);
}

void choose_threads(Shape& shape, const DirectConvTile& tile) {
  // A warp over neighbouring pixels, or over as many channels as fill a few sectors.
  int most_filters = shape.pixels_are_fastest ? 2 : (tile.filters == 1 ? 5 : 3);
  int wanted = ceil_log2(shape.chunks);
  int filters = std::min(most_filters, wanted);
  // Few pixels: threads that would have none take filters instead.
  while (filters < std::min(wanted, kThreadsLog2) &&
         (int64_t{tile.pixels} << (kThreadsLog2 - filters)) >= 2 * shape.pixels * shape.lane_phases) {
    ++filters;
  }
  shape.filter_threads_log2 = filters;
  shape.pixel_threads_log2 = kThreadsLog2 - filters;
}

void choose_stage(Shape& shape, const ConvProblem& problem, int64_t reduced_channels, int accumulator_size) {
  int64_t depth = std::max<int64_t>(kStagedBytes / accumulator_size / shape.block_filters, 1);
  int64_t rows = ceil_div(problem.w.sizes[2], tap_step(problem, 0));
  int64_t columns = shape.lane_phases > 1 ? problem.w.sizes[3] : ceil_div(problem.w.sizes[3], tap_step(problem, 1));
  int64_t stage_columns = std::min(columns, depth);
  int64_t stage_rows = std::min(rows, depth / stage_columns);
  int64_t stage_channels = 1;
  if (stage_rows == rows && stage_columns == columns) {
    int64_t most = std::max<int64_t>(depth / (rows * columns), 1);
    int64_t stages = std::max<int64_t>(ceil_div(reduced_channels, most), 1);
    stage_channels = std::max<int64_t>(ceil_div(reduced_channels, stages), 1);
  }
  shape.stage_rows = static_cast<int>(stage_rows);
  shape.stage_columns = static_cast<int>(stage_columns);
  shape.stage_channels = static_cast<int>(stage_channels);
}

int64_t shared_bytes_of(const Shape& shape, const DirectConvTile& tile, int index_bits, int accumulator_size) {
  int pitch = tile.filters == 1 ? direct_conv_pitch<1>(shape.block_filters) : direct_conv_pitch<4>(shape.block_filters);
  int64_t staged = int64_t{shape.stage_rows} * shape.stage_columns * shape.stage_channels * pitch;
  int64_t block_pixels = int64_t{tile.pixels} << shape.pixel_threads_log2;
  int64_t outputs = block_pixels * (shape.block_filters + (shape.pixels_are_fastest ? 0 : 1));
  int64_t table = ceil_div(2 * shape.block_filters, 4) * 4 * (index_bits / 8);
  return table + std::max(staged, outputs) * accumulator_size;
}

Shape shape_of(const ConvProblem& problem, const DirectConvTile& tile) {
  Roles roles = roles_of(problem);
  int row_phases = phases(problem, 0), column_phases = phases(problem, 1);
  Shape shape;
  shape.phase_rows = ceil_div(roles.output->sizes[2], phase_stride(problem, 0));
  shape.phase_columns = ceil_div(roles.output->sizes[3], phase_stride(problem, 1));
  shape.pixels = roles.output->sizes[0] * shape.phase_rows * shape.phase_columns;
  shape.chunks_per_group = ceil_div(roles.group_outputs, tile.filters);
  shape.chunks = shape.chunks_per_group * problem.groups;
  shape.pixels_are_fastest = !channels_are_innermost(*roles.output);
  shape.lane_phases = shape.pixels_are_fastest && column_phases <= kMostLanePhases ? column_phases : 1;
  choose_threads(shape, tile);
  int64_t lanes = (int64_t{1} << shape.pixel_threads_log2) / shape.lane_phases;
  if (lanes == 0) {  // all threads went to filters, and there are fewer pixels than phases
    shape.lane_phases = 1;
    lanes = int64_t{1} << shape.pixel_threads_log2;
  }
  shape.column_block_phases = column_phases / shape.lane_phases;
  shape.row_phases = row_phases;
  shape.filter_blocks = ceil_div(shape.chunks, int64_t{1} << shape.filter_threads_log2);
  shape.pixel_blocks = ceil_div(shape.pixels, lanes * tile.pixels);
  shape.block_filters = tile.filters << shape.filter_threads_log2;
  int accumulator_size = std::max(size_of(problem.dtype), 4);
  choose_stage(shape, problem, roles.reduced_channels, accumulator_size);
  shape.shared_bytes = shared_bytes_of(shape, tile, problem.index_bits, accumulator_size);
  return shape;
}

template <typename Index>
Axis<Index> axis_of(const ConvProblem& problem, int axis) {
  int stride = problem.stride[axis], dilation = problem.dilation[axis];
  int64_t input = problem.x.sizes[2 + axis], output = problem.y.sizes[2 + axis];
  Axis<Index> result;
  result.taps = static_cast<int>(problem.w.sizes[2 + axis]);
  result.dilation = dilation;
  result.padding = problem.padding[2 * axis];
  result.tap_step = tap_step(problem, axis);
  result.transposed = problem.pass == ConvPass::dgrad;
  result.phase_stride = phase_stride(problem, axis);
  result.input_step = result.transposed ? -(dilation / std::gcd(stride, dilation)) : dilation;
  result.input_scale = result.transposed ? 1 : stride;
  result.inputs = static_cast<Index>(result.transposed ? output : input);
  result.outputs = static_cast<Index>(result.transposed ? input : output);
  if (result.transposed && !problem.is_zero_padded()) result.padding = 0;  // an output's place is its place in x
  return result;
}

StageOrder stage_order_of(const Roles& roles, const Operand& w) {
  int reduced_dimension = 1 - roles.weight_output_dimension;
  if (w.strides[reduced_dimension] == 1 && roles.reduced_channels > 1) return StageOrder::channels_fastest;
  if (w.strides[roles.weight_output_dimension] == 1 && roles.group_outputs > 1) return StageOrder::filters_fastest;
  return StageOrder::taps_fastest;
}

template <typename Index>
DirectConvParameters<Index> parameters_of(const ConvProblem& problem, const Shape& shape) {
  Roles roles = roles_of(problem);
  DirectConvParameters<Index> p{};
  p.input_strides = Strides<Index>::of(*roles.input);
  p.output_strides = Strides<Index>::of(*roles.output);
  if (problem.has_residual) p.residual_strides = Strides<Index>::of(problem.residual);
  const auto& w = problem.w;
  p.weight_group = static_cast<Index>(w.sizes[0] / problem.groups * w.strides[0]);
  p.weight_output = static_cast<Index>(w.strides[roles.weight_output_dimension]);
  p.weight_input = static_cast<Index>(w.strides[1 - roles.weight_output_dimension]);
  p.weight_row = static_cast<Index>(w.strides[2]);
  p.weight_column = static_cast<Index>(w.strides[3]);
  p.rows = axis_of<Index>(problem, 0);
  p.columns = axis_of<Index>(problem, 1);
  p.pixels = static_cast<Index>(shape.pixels);
  p.phase_rows = DividerOf<Index>(shape.phase_rows);
  p.phase_columns = DividerOf<Index>(shape.phase_columns);
  p.reduced_channels = static_cast<Index>(roles.reduced_channels);
  p.group_outputs = static_cast<Index>(roles.group_outputs);
  p.chunks = static_cast<Index>(shape.chunks);
  p.chunks_per_group = DividerOf<Index>(shape.chunks_per_group);
  p.activation = problem.activation;
  for (int axis = 0; axis < 2; ++axis) {
    p.padded[axis] = PaddedAxis<Index>::of(problem, axis);
    p.strides[axis] = DividerOf<Index>(problem.stride[axis]);
    if (problem.padding_mode == PaddingMode::replicate) {
      const auto in_padding = [&](int width) {
        return static_cast<Index>(
            std::min(problem.y.sizes[2 + axis], ceil_div(int64_t{width}, int64_t{problem.stride[axis]})));
      };
      p.first_padded[axis] = in_padding(problem.padding[2 * axis]);
      p.last_padded[axis] = in_padding(problem.padding[2 * axis + 1]);
    }
  }
  if (problem.pass == ConvPass::fprop && problem.padding_mode == PaddingMode::constant) p.fill = problem.padding_value;
  p.filter_blocks = FastDivider<uint32_t>(shape.filter_blocks);
  p.pixel_blocks = FastDivider<uint32_t>(shape.pixel_blocks);
  p.column_block_phases = FastDivider<uint32_t>(shape.column_block_phases);
  p.pixel_threads_log2 = shape.pixel_threads_log2;
  p.filter_threads_log2 = shape.filter_threads_log2;
  p.pixels_are_fastest = shape.pixels_are_fastest;
  p.lane_phases = FastDivider<uint32_t>(shape.lane_phases);
  p.stage_rows = shape.stage_rows;
  p.stage_columns = shape.stage_columns;
  p.stage_channels = shape.stage_channels;
  p.stage_columns_divider = FastDivider<uint32_t>(shape.stage_columns);
  p.stage_channels_divider = FastDivider<uint32_t>(shape.stage_channels);
  p.stage_taps_divider = FastDivider<uint32_t>(shape.stage_rows * shape.stage_columns);
  p.stage_depth_divider = FastDivider<uint32_t>(shape.stage_rows * shape.stage_columns * shape.stage_channels);
  p.stage_order = stage_order_of(roles, w);
  return p;
}

// Beside the loop over channels, as the disassembly counts: to find a pixel's input for a tap and whether it exists,
// and to find an output's place and finish it.
constexpr double kTapInstructions = 15, kOutputInstructions = 80;

Description describe(const ConvProblem& problem, const DirectConvTile& tile, const Shape& shape) {
  Roles roles = roles_of(problem);
  Description description;
  description.blocks = roles.output->count() == 0 ? 0 : static_cast<unsigned>(shape.blocks());
  description.threads = kDirectConvThreads;
  description.shared_bytes = shape.shared_bytes;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.choices = {{"block_filters", shape.block_filters},
                         {"block_pixels", int64_t{tile.pixels} << shape.pixel_threads_log2},
                         {"stage_depth", int64_t{shape.stage_rows} * shape.stage_columns * shape.stage_channels}};
  int64_t taps_of_a_phase =
      ceil_div(problem.w.sizes[2], tap_step(problem, 0)) * ceil_div(problem.w.sizes[3], tap_step(problem, 1));
  const double thread_pixels = static_cast<double>(shape.blocks()) * kDirectConvThreads * tile.pixels;
  const double products = tile.filters * static_cast<double>(roles.reduced_channels);  // of a pixel and a tap
  Work work;
  work.multiply_adds = thread_pixels * taps_of_a_phase * (products / tile.efficiency + kTapInstructions) +
                       static_cast<double>(roles.output->count()) * kOutputInstructions;
  work.exposed = kExposedWithoutStages;
  work.bytes = static_cast<double>(description.compulsory_bytes);
  work.blocks = static_cast<double>(shape.blocks());
  description.predicted_seconds = predict_seconds(work, problem.dtype, problem.target);
  return description;
}

template <typename T, typename Index>
Prepared prepare_as(const ConvProblem& problem, int tile_index) {
  const DirectConvTile& tile = kDirectConvTiles[tile_index];
  Shape shape = shape_of(problem, tile);
  Description description = describe(problem, tile, shape);
  DirectConvParameters<Index> prototype = parameters_of<Index>(problem, shape);
  prototype.fill = Numeric<T>::load(Numeric<T>::store(static_cast<AccumulatorOf<T>>(prototype.fill)));
  DirectConvKernel<Index> kernel = direct_conv_kernel_of<T, Index>(tile_index, !problem.is_zero_padded());
  bool is_fprop = problem.pass == ConvPass::fprop;
  int64_t bias_bytes = roles_of(problem).output->sizes[1] * sizeof(T);
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, w, y, bias, residual] = arguments.pointers;
    DirectConvParameters<Index> p = prototype;
    p.input = is_fprop ? x : y;
    p.weight = w;
    p.output = is_fprop ? y : x;
    p.bias = problem.has_bias ? bias : nullptr;
    p.residual = problem.has_residual ? residual : nullptr;
    LaunchShape launch_shape{is_fprop ? "direct_fprop" : "direct_dgrad", description.blocks, description.threads,
                             description.shared_bytes, kDirectConvThreads};
    launch_kernel(launch_shape, kernel, p,
                  {{"x", x, bytes_of(problem.x, sizeof(T)), !is_fprop},
                   {"w", w, bytes_of(problem.w, sizeof(T))},
                   {"y", y, bytes_of(problem.y, sizeof(T)), is_fprop},
                   {"bias", p.bias, bias_bytes},
                   {"residual", p.residual, bytes_of(problem.residual, sizeof(T))}},
                  arguments.stream);
  };
  if (description.blocks == 0) return {description, [](const LaunchArguments&) {}};
  return {description, launch};
}

std::vector<std::string> configs(const ConvProblem&) {
  std::vector<std::string> names;
  for (const DirectConvTile& tile : kDirectConvTiles) names.push_back(tile.name);
  return names;
}

std::string can_implement(const ConvProblem& problem, const std::string& config) {
  const DirectConvTile& tile = kDirectConvTiles[tile_number(config)];
  std::string reason = tile.is_mapped ? "" : reason_for_padding(problem);
  return reason.empty() ? reason_for_blocks(shape_of(problem, tile).blocks()) : reason;
}

Prepared prepare(const ConvProblem& problem, const std::string& config) {
  return with_type(problem.dtype, [&](auto type) {
    return with_index(problem.index_bits, [&](auto index) {
      return prepare_as<typename decltype(type)::type, typename decltype(index)::type>(problem, tile_number(config));
    });
  });
}

}  // namespace

const KernelFamily<ConvProblem> direct_fprop{
    "direct_fprop",
    "convolution by definition: any type, stride, padding of every mode, dilation, groups and layout; bias, residual "
    "and activation in the epilogue",
    configs,
    can_implement,
    prepare,
    true};

const KernelFamily<ConvProblem> direct_dgrad{
    "direct_dgrad",
    "gradient by input, or transposed convolution, as a gather over the taps of each stride phase; bias and "
    "activation in the epilogue",
    configs,
    can_implement,
    prepare,
    true};

}  // namespace fastconv
