#include "launch/max_pool.h"

#include "common/cost.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

// The tensor that the pass writes, with the sizes that its threads count.
const Operand& output_of(const PoolProblem& problem) {
  return problem.pass == PoolPass::backward ? problem.x : problem.y;
}

int64_t blocks_of(const PoolProblem& problem) {
  return ceil_div(output_of(problem).count(), int64_t{kPoolThreads} * kPoolItems);
}

template <typename Index>
PoolAxis<Index> axis_of(const PoolProblem& problem, int axis) {
  PoolAxis<Index> result;
  result.inputs = static_cast<Index>(problem.x.sizes[2 + axis]);
  result.outputs = static_cast<Index>(problem.y.sizes[2 + axis]);
  result.window = problem.kernel[axis];
  result.stride = problem.stride[axis];
  result.padding = problem.padding[axis];
  result.dilation = problem.dilation[axis];
  result.stride_divider = DividerOf<Index>(problem.stride[axis]);
  result.dilation_divider = DividerOf<Index>(problem.dilation[axis]);
  return result;
}

template <typename Index>
PoolParameters<Index> parameters_of(const PoolProblem& problem) {
  PoolParameters<Index> p{};
  const Operand& output = output_of(problem);
  p.input_strides = Strides<Index>::of(problem.pass == PoolPass::backward ? problem.y : problem.x);
  p.output_strides = Strides<Index>::of(output);
  p.offset_strides = Strides<Index>::of(problem.offsets);
  p.offsets_are_bytes = problem.offsets_type == OffsetType::uint8;
  p.rows = axis_of<Index>(problem, 0);
  p.columns = axis_of<Index>(problem, 1);
  p.window_columns = FastDivider<uint32_t>(problem.kernel[1]);
  p.count = static_cast<Index>(output.count());
  p.channels_are_fastest = channels_are_innermost(output);
  p.output_channels = DividerOf<Index>(output.sizes[1]);
  p.output_rows = DividerOf<Index>(output.sizes[2]);
  p.output_columns = DividerOf<Index>(output.sizes[3]);
  return p;
}

template <typename Index>
PoolKernel<Index> kernel_of(const PoolProblem& problem) {
  switch (problem.pass) {
    case PoolPass::forward:
      return max_pool_forward_kernel_of<Index>(problem.dtype);
    case PoolPass::backward:
      return max_pool_backward_kernel_of<Index>(problem.dtype);
    case PoolPass::gather:
      return max_pool_gather_kernel_of<Index>(problem.dtype);
    default:
      return max_pool_indices_kernel_of<Index>();
  }
}

// Instructions that a thread executes for an output, as the machine code has them, roughly: what binds these kernels.
double instructions_of(const PoolProblem& problem) {
  const double outputs = static_cast<double>(output_of(problem).count());
  if (problem.pass == PoolPass::forward) return outputs * (40 + 12.0 * problem.kernel[0] * problem.kernel[1]);
  if (problem.pass != PoolPass::backward) return outputs * 40;
  const auto windows = [&](int axis) {
    return static_cast<double>(ceil_div(problem.kernel[axis], problem.stride[axis]));
  };
  return outputs * (40 + 25 * windows(0) * windows(1));
}

Description describe(const PoolProblem& problem) {
  Description description;
  description.blocks = static_cast<unsigned>(blocks_of(problem));
  description.threads = kPoolThreads;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  Work work;
  work.bytes = static_cast<double>(description.compulsory_bytes);
  work.blocks = description.blocks;
  work.multiply_adds = instructions_of(problem);
  // Whatever the type of the elements, comparing and addressing run at the rate of float32.
  description.predicted_seconds = predict_seconds(work, DataType::float32, problem.target);
  return description;
}

template <typename Index>
Prepared prepare_as(const PoolProblem& problem) {
  Description description = describe(problem);
  PoolParameters<Index> prototype = parameters_of<Index>(problem);
  PoolKernel<Index> kernel = kernel_of<Index>(problem);
  if (description.blocks == 0) return {description, [](const LaunchArguments&) {}};
  auto launch = [=](const LaunchArguments& arguments) {
    static const char* const names[] = {"max_pool_forward", "max_pool_backward", "max_pool_gather", "max_pool_indices"};
    auto [x, y, offsets, indices, unused] = arguments.pointers;
    PoolParameters<Index> p = prototype;
    bool is_backward = problem.pass == PoolPass::backward, is_indices = problem.pass == PoolPass::indices;
    p.input = is_backward ? y : x;
    p.output = is_backward ? x : is_indices ? indices : y;
    p.offsets = offsets;
    int64_t size = size_of(problem.dtype);
    LaunchShape shape{names[static_cast<int>(problem.pass)], description.blocks, description.threads, 0, kPoolThreads};
    launch_kernel(shape, kernel, p,
                  {{"x", is_indices ? nullptr : x, bytes_of(problem.x, size), is_backward},
                   {"y", is_indices ? nullptr : y, bytes_of(problem.y, size), !is_backward},
                   {"offsets", offsets, bytes_of(problem.offsets, p.offsets_are_bytes ? 1 : 4),
                    problem.pass == PoolPass::forward},
                   {"indices", is_indices ? indices : nullptr, bytes_of(problem.y, 8), true}},
                  arguments.stream);
  };
  return {description, launch};
}

std::vector<std::string> configs(const PoolProblem&) {
  return {""};
}

std::string can_implement(const PoolProblem& problem, const std::string&) {
  return reason_for_blocks(blocks_of(problem));
}

Prepared prepare(const PoolProblem& problem, const std::string&) {
  return with_index(problem.index_bits,
                    [&](auto index) { return prepare_as<typename decltype(index)::type>(problem); });
}

}  // namespace

const KernelFamily<PoolProblem> max_pool_forward{
    "max_pool_forward",
    "largest element of each window and its place in it: any type, window, stride, padding, dilation, layout", configs,
    can_implement, prepare};

const KernelFamily<PoolProblem> max_pool_backward{
    "max_pool_backward", "gradient by input, gathered from the windows over each element in a fixed order", configs,
    can_implement, prepare};

const KernelFamily<PoolProblem> max_pool_gather{
    "max_pool_gather", "elements at the winners' places: the linear map whose transpose is backward", configs,
    can_implement, prepare};

const KernelFamily<PoolProblem> max_pool_indices{"max_pool_indices", "winners' places as flat positions in H * W",
                                                 configs, can_implement, prepare};

}  // namespace fastconv
