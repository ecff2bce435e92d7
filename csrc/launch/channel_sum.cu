#include "launch/channel_sum.h"

#include "common/cost.h"
#include "kernels/channel_sum.cuh"
#include "launch/split_sum.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

constexpr int kThreadsLog2 = 8;
static_assert(kChannelSumThreads == 1 << kThreadsLog2, "the block's threads are split by powers of two");

// Dimensions that continue each other as one: the fewer the walk has, the fewer carries.
Operand merged(const Operand& x) {
  Operand result = x;
  auto merge = [&](int outer, int inner) {
    bool continues = result.strides[outer] == result.sizes[inner] * result.strides[inner];
    if (!continues && result.sizes[outer] != 1 && result.sizes[inner] != 1) return;
    if (result.sizes[inner] == 1) result.strides[inner] = result.strides[outer];
    result.sizes[inner] *= result.sizes[outer];
    result.sizes[outer] = 1;
  };
  if (x.count() == 0) return result;
  merge(2, 3);
  merge(0, result.sizes[2] == 1 ? 3 : 2);
  return result;
}

struct Shape {
  int pixel_lanes_log2, channel_lanes_log2;
  bool channels_are_fastest;
  int64_t pixels, channel_blocks;
  Splits splits;
};

Shape shape_of(const ChannelSumProblem& problem) {
  const Operand& x = problem.x;
  Shape shape;
  shape.pixels = x.sizes[0] * x.sizes[2] * x.sizes[3];
  shape.channels_are_fastest = channels_are_innermost(x);
  // Up to a warp of neighbouring channels; threads without a channel take pixels.
  int channel_lanes = shape.channels_are_fastest ? std::min(5, ceil_log2(x.sizes[1])) : 0;
  // Few pixels: several channels a block.
  while (channel_lanes < kThreadsLog2 && (int64_t{1} << channel_lanes) < x.sizes[1] &&
         shape.pixels << channel_lanes < kChannelSumThreads) {
    ++channel_lanes;
  }
  shape.channel_lanes_log2 = channel_lanes;
  shape.pixel_lanes_log2 = kThreadsLog2 - channel_lanes;
  shape.channel_blocks = ceil_div(x.sizes[1], int64_t{1} << channel_lanes);
  shape.splits = choose_splits(shape.pixels, 1 << shape.pixel_lanes_log2, shape.channel_blocks, x.sizes[1],
                               std::max(size_of(problem.dtype), 4), problem.target);
  return shape;
}

Description describe(const ChannelSumProblem& problem, const Shape& shape) {
  Description description;
  description.blocks = static_cast<unsigned>(shape.channel_blocks * shape.splits.count);
  description.threads = kChannelSumThreads;
  description.shared_bytes = kChannelSumThreads * std::max(size_of(problem.dtype), 4);
  description.workspace_bytes = shape.splits.workspace_bytes;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.choices = {{"splits", shape.splits.count}};
  Work work;
  work.bytes = static_cast<double>(description.compulsory_bytes + 2 * description.workspace_bytes);
  work.blocks = description.blocks;
  description.predicted_seconds = predict_seconds(work, problem.dtype, problem.target);
  return description;
}

template <typename T, typename Index>
Prepared prepare_as(const ChannelSumProblem& problem) {
  Shape shape = shape_of(problem);
  Operand x = merged(problem.x);
  Description description = describe(problem, shape);
  ChannelSumParameters<Index> prototype{};
  prototype.strides = Strides<Index>::of(x);
  prototype.channels = static_cast<Index>(x.sizes[1]);
  prototype.rows = static_cast<Index>(x.sizes[2]);
  prototype.columns = static_cast<Index>(x.sizes[3]);
  prototype.rows_divider = DividerOf<Index>(x.sizes[2]);
  prototype.columns_divider = DividerOf<Index>(x.sizes[3]);
  prototype.pixels = static_cast<Index>(shape.pixels);
  prototype.split_pixels = static_cast<Index>(shape.splits.terms);
  prototype.step = step_of<Index>(int64_t{1} << shape.pixel_lanes_log2, x.sizes[2], x.sizes[3]);
  prototype.channel_blocks = FastDivider<uint32_t>(shape.channel_blocks);
  prototype.pixel_lanes_log2 = shape.pixel_lanes_log2;
  prototype.channel_lanes_log2 = shape.channel_lanes_log2;
  prototype.channels_are_fastest = shape.channels_are_fastest;
  if (description.blocks == 0) return {description, [](const LaunchArguments&) {}};
  auto launch = [=](const LaunchArguments& arguments) {
    ChannelSumParameters<Index> p = prototype;
    p.x = arguments.pointers[0];
    p.sums = arguments.pointers[1];
    p.workspace = description.workspace_bytes > 0 ? arguments.workspace : nullptr;
    int64_t sums_bytes = problem.x.sizes[1] * static_cast<int64_t>(sizeof(T));
    // Static shared memory: nothing is asked for at launch.
    LaunchShape launch_shape{"channel_sum", description.blocks, description.threads, 0, kChannelSumThreads};
    launch_kernel(launch_shape, channel_sum_kernel<T, Index>, p,
                  {{"x", p.x, bytes_of(problem.x, sizeof(T))},
                   {"sums", p.sums, sums_bytes, true},
                   {"workspace", p.workspace, description.workspace_bytes, true}},
                  arguments.stream);
    if (!p.workspace) return;
    Operand sums{{1, problem.x.sizes[1], 1, 1}, {problem.x.sizes[1], 1, 1, 1}};
    launch_split_sum<T, Index>("channel_sum, second pass", sums, shape.splits.count, p.workspace, p.sums,
                               arguments.stream);
  };
  return {description, launch};
}

std::vector<std::string> configs(const ChannelSumProblem&) {
  return {""};
}

std::string can_implement(const ChannelSumProblem& problem, const std::string&) {
  return reason_for_blocks(shape_of(problem).channel_blocks);
}

Prepared prepare(const ChannelSumProblem& problem, const std::string&) {
  return prepare_channel_sum(problem);
}

}  // namespace

Prepared prepare_channel_sum(const ChannelSumProblem& problem) {
  return with_type(problem.dtype, [&](auto type) {
    return with_index(problem.index_bits, [&](auto index) {
      return prepare_as<typename decltype(type)::type, typename decltype(index)::type>(problem);
    });
  });
}

const KernelFamily<ChannelSumProblem> channel_sum{
    "channel_sum", "sum over batch and pixels of each channel in one read, any layout, in a fixed order", configs,
    can_implement, prepare};

}  // namespace fastconv
