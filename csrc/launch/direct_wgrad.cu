#include "launch/direct_wgrad.h"

#include "common/cost.h"
#include "launch/channel_sum.h"
#include "launch/split_sum.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

constexpr int kThreadsLog2 = 7;
static_assert(kDirectWgradThreads == 1 << kThreadsLog2, "the block's threads are split by powers of two");
constexpr int kWarpLog2 = 5;
// Groups with fewer channels than this cannot fill the sectors that a warp reads; neighbouring groups can.
constexpr int64_t kNarrowGroup = 8;

int tile_number(const std::string& config) {
  for (int i = 0; i < 2; ++i) {
    if (config == kDirectWgradTiles[i].name) return i;
  }
  throw std::invalid_argument("config is '" + config + "', but must be one of direct_wgrad's tiles");
}

struct Shape {
  int64_t pixels, weight_columns, chunks_per_group, chunks, column_blocks, filter_blocks;
  Lanes pixel_lanes, column_lanes, filter_lanes;
  Splits splits;
  int64_t bias_offset;  // of the bias gradient's workspace

  int64_t tiles() const { return column_blocks * filter_blocks; }
};

// Gives out the block's threads: each role takes up to `most` bits of what is left, and no more than it can use.
void choose_lanes(Shape& shape, const ConvProblem& problem, const DirectWgradTile& tile) {
  int column_need = ceil_log2(ceil_div(shape.weight_columns, tile.columns)), filter_need = ceil_log2(shape.chunks);
  int left = kThreadsLog2, shift = 0;
  auto take = [&](Lanes& lanes, int most) {
    int bits = std::max(std::min(most, left), 0);
    lanes = {shift, bits};
    shift += bits;
    left -= bits;
  };
  bool channels_last = channels_are_innermost(problem.y) && channels_are_innermost(problem.x);
  if (!channels_last) {  // a warp over neighbouring pixels, and a few weights so that their pixels meet in L1
    int for_columns = std::min(column_need, 1), for_filters = std::min(filter_need, 1);
    take(shape.pixel_lanes, kThreadsLog2 - for_columns - for_filters);
    take(shape.column_lanes, for_columns);
    take(shape.filter_lanes, for_filters);
  } else if (problem.groups > 1 && problem.w.sizes[1] < kNarrowGroup) {
    take(shape.filter_lanes, std::min(filter_need, kWarpLog2));
    take(shape.column_lanes, 0);
    take(shape.pixel_lanes, left);
  } else {
    take(shape.column_lanes, std::min(column_need, 4));
    take(shape.filter_lanes, std::min(filter_need, 2));
    take(shape.pixel_lanes, left);
  }
}

Shape shape_of(const ConvProblem& problem, const DirectWgradTile& tile) {
  const auto& w = problem.w.sizes;
  const auto& y = problem.y.sizes;
  Shape shape;
  shape.pixels = y[0] * y[2] * y[3];
  shape.weight_columns = w[1] * w[2] * w[3];
  shape.chunks_per_group = ceil_div(w[0] / problem.groups, tile.filters);
  shape.chunks = shape.chunks_per_group * problem.groups;
  choose_lanes(shape, problem, tile);
  shape.column_blocks = ceil_div(shape.weight_columns, int64_t{tile.columns} * shape.column_lanes.count());
  shape.filter_blocks = ceil_div(shape.chunks, shape.filter_lanes.count());
  shape.splits = choose_splits(shape.pixels, shape.pixel_lanes.count(), shape.tiles(), problem.w.count(),
                               std::max(size_of(problem.dtype), 4), problem.target);
  shape.bias_offset = ceil_div(shape.splits.workspace_bytes, 256) * 256;
  return shape;
}

template <typename Index>
DirectWgradParameters<Index> parameters_of(const ConvProblem& problem, const Shape& shape) {
  DirectWgradParameters<Index> p{};
  const auto& w = problem.w.sizes;
  const auto& y = problem.y.sizes;
  p.x_strides = Strides<Index>::of(problem.x);
  p.dy_strides = Strides<Index>::of(problem.y);
  p.dw_strides = Strides<Index>::of(problem.w);
  p.height = static_cast<Index>(problem.x.sizes[2]);
  p.width = static_cast<Index>(problem.x.sizes[3]);
  p.rows = static_cast<Index>(y[2]);
  p.columns = static_cast<Index>(y[3]);
  p.rows_divider = DividerOf<Index>(y[2]);
  p.columns_divider = DividerOf<Index>(y[3]);
  p.pixels = static_cast<Index>(shape.pixels);
  p.split_pixels = static_cast<Index>(shape.splits.terms);
  p.step = step_of<Index>(shape.pixel_lanes.count(), y[2], y[3]);
  for (int i = 0; i < 2; ++i) {
    p.stride[i] = problem.stride[i];
    p.padding[i] = problem.padding[2 * i];
    p.dilation[i] = problem.dilation[i];
  }
  p.filters = static_cast<Index>(w[0]);
  p.group_filters = static_cast<Index>(w[0] / problem.groups);
  p.group_channels = static_cast<Index>(w[1]);
  p.weight_columns = static_cast<Index>(shape.weight_columns);
  p.channels_divider = DividerOf<Index>(w[1]);
  p.taps_divider = DividerOf<Index>(w[3]);
  p.chunks = static_cast<Index>(shape.chunks);
  p.chunks_per_group = DividerOf<Index>(shape.chunks_per_group);
  p.column_blocks = FastDivider<uint32_t>(shape.column_blocks);
  p.filter_blocks = FastDivider<uint32_t>(shape.filter_blocks);
  p.pixel_lanes = shape.pixel_lanes;
  p.column_lanes = shape.column_lanes;
  p.filter_lanes = shape.filter_lanes;
  p.padded_rows = PaddedAxis<Index>::of(problem, 0);
  p.padded_columns = PaddedAxis<Index>::of(problem, 1);
  if (problem.padding_mode == PaddingMode::constant) p.fill = problem.padding_value;
  return p;
}

ChannelSumProblem bias_problem_of(const ConvProblem& problem) {
  ChannelSumProblem bias;
  bias.dtype = problem.dtype;
  bias.x = problem.y;
  bias.index_bits = problem.index_bits;
  bias.target = problem.target;
  return bias;
}

Description describe(const ConvProblem& problem, const DirectWgradTile& tile, const Shape& shape) {
  Description description;
  description.blocks = static_cast<unsigned>(shape.tiles() * shape.splits.count);
  description.threads = kDirectWgradThreads;
  int accumulator_size = std::max(size_of(problem.dtype), 4);
  description.shared_bytes = int64_t{kDirectWgradPitch} * tile.filters * tile.columns * accumulator_size;
  description.workspace_bytes = shape.splits.workspace_bytes;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.choices = {{"block_filters", int64_t{tile.filters} * shape.filter_lanes.count()},
                         {"block_columns", int64_t{tile.columns} * shape.column_lanes.count()},
                         {"splits", shape.splits.count}};
  Work work;
  double block_weights = double(tile.filters) * tile.columns * shape.filter_lanes.count() * shape.column_lanes.count();
  work.multiply_adds = static_cast<double>(shape.tiles()) * block_weights * static_cast<double>(shape.pixels);
  work.efficiency = tile.efficiency;
  work.bytes = static_cast<double>(description.compulsory_bytes + 2 * description.workspace_bytes);
  work.blocks = description.blocks;
  work.exposed = kExposedWithoutStages;
  description.predicted_seconds = predict_seconds(work, problem.dtype, problem.target);
  return description;
}

template <typename T, typename Index>
Prepared prepare_as(const ConvProblem& problem, int tile_index) {
  const DirectWgradTile& tile = kDirectWgradTiles[tile_index];
  Shape shape = shape_of(problem, tile);
  Description description = describe(problem, tile, shape);
  DirectWgradParameters<Index> prototype = parameters_of<Index>(problem, shape);
  prototype.fill = Numeric<T>::load(Numeric<T>::store(static_cast<AccumulatorOf<T>>(prototype.fill)));
  DirectWgradKernel<Index> kernel = direct_wgrad_kernel_of<T, Index>(tile_index, !problem.is_zero_padded());
  Prepared bias;
  if (problem.has_bias) {
    bias = prepare_channel_sum(bias_problem_of(problem));
    if (bias.description.workspace_bytes > 0) {
      description.workspace_bytes = shape.bias_offset + bias.description.workspace_bytes;
    }
    description.predicted_seconds += bias.description.predicted_seconds;
  }
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, w, y, bias_gradient, residual] = arguments.pointers;
    if (description.blocks > 0) {
      DirectWgradParameters<Index> p = prototype;
      p.x = x;
      p.dy = y;
      p.dw = w;
      p.workspace = shape.splits.count > 1 ? arguments.workspace : nullptr;
      LaunchShape launch_shape{"direct_wgrad", description.blocks, description.threads, description.shared_bytes,
                               kDirectWgradThreads};
      launch_kernel(launch_shape, kernel, p,
                    {{"x", x, bytes_of(problem.x, sizeof(T))},
                     {"w", w, bytes_of(problem.w, sizeof(T)), true},
                     {"y", y, bytes_of(problem.y, sizeof(T))},
                     {"workspace", p.workspace, shape.splits.workspace_bytes, true}},
                    arguments.stream);
      if (p.workspace) {
        launch_split_sum<T, Index>("direct_wgrad, second pass", problem.w, shape.splits.count, p.workspace, w,
                                   arguments.stream);
      }
    }
    if (problem.has_bias) {
      LaunchArguments bias_arguments;
      bias_arguments.pointers = {y, bias_gradient};
      bias_arguments.workspace = static_cast<unsigned char*>(arguments.workspace) + shape.bias_offset;
      bias_arguments.stream = arguments.stream;
      bias.launch(bias_arguments);
    }
  };
  return {description, launch};
}

std::vector<std::string> configs(const ConvProblem&) {
  std::vector<std::string> names;
  for (const DirectWgradTile& tile : kDirectWgradTiles) names.push_back(tile.name);
  return names;
}

std::string can_implement(const ConvProblem& problem, const std::string& config) {
  return reason_for_blocks(shape_of(problem, kDirectWgradTiles[tile_number(config)]).tiles());
}

Prepared prepare(const ConvProblem& problem, const std::string& config) {
  return with_type(problem.dtype, [&](auto type) {
    return with_index(problem.index_bits, [&](auto index) {
      return prepare_as<typename decltype(type)::type, typename decltype(index)::type>(problem, tile_number(config));
    });
  });
}

}  // namespace

const KernelFamily<ConvProblem> direct_wgrad{"direct_wgrad",
                                             "gradient by weight: any type, stride, padding of every mode, "
                                             "dilation, groups and layout; with the bias gradient; splits of the sum "
                                             "are added up in order",
                                             configs,
                                             can_implement,
                                             prepare,
                                             true};

}  // namespace fastconv
