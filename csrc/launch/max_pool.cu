#include "launch/max_pool_moving.h"

#include <algorithm>

#include "common/cost.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

// The tensor that the pass writes, with the sizes that its threads count.
const Operand& output_of(const PoolProblem& problem) {
  return problem.pass == PoolPass::backward ? problem.x : problem.y;
}

// Channels of a thread: 16 bytes of them, or one.
int64_t elements_of(const PoolProblem& problem) {
  const bool has_such = problem.pass == PoolPass::forward || problem.pass == PoolPass::backward;
  const bool has_vectors =
      has_such && channels_are_innermost(output_of(problem)) && reason_against_vectors(problem).empty();
  return has_vectors ? vector_of(problem) : 1;
}

int64_t blocks_of(const PoolProblem& problem, int64_t elements) {
  const int items = elements == 1 ? kPoolItems<1> : kPoolItems<2>;
  return ceil_div(output_of(problem).count() / elements, int64_t{kPoolThreads} * items);
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
PoolParameters<Index> parameters_of(const PoolProblem& problem, int64_t elements) {
  PoolParameters<Index> p{};
  const Operand& output = output_of(problem);
  p.input_strides = Strides<Index>::of(problem.pass == PoolPass::backward ? problem.y : problem.x);
  p.output_strides = Strides<Index>::of(output);
  p.offset_strides = Strides<Index>::of(problem.offsets);
  p.offsets_are_bytes = problem.offsets_type == OffsetType::uint8;
  p.rows = axis_of<Index>(problem, 0);
  p.columns = axis_of<Index>(problem, 1);
  p.window_columns = FastDivider<uint32_t>(problem.kernel[1]);
  p.count = static_cast<Index>(output.count() / elements);
  p.channels_are_fastest = channels_are_innermost(output);
  p.output_channels = DividerOf<Index>(output.sizes[1] / elements);
  p.output_rows = DividerOf<Index>(output.sizes[2]);
  p.output_columns = DividerOf<Index>(output.sizes[3]);
  return p;
}

template <typename Index>
PoolKernel<Index> kernel_of(const PoolProblem& problem, bool has_vectors) {
  switch (problem.pass) {
    case PoolPass::forward:
      return max_pool_forward_kernel_of<Index>(problem.dtype, has_vectors);
    case PoolPass::backward:
      return max_pool_backward_kernel_of<Index>(problem.dtype, has_vectors);
    case PoolPass::gather:
      return max_pool_gather_kernel_of<Index>(problem.dtype);
    default:
      return max_pool_indices_kernel_of<Index>();
  }
}

// Instructions that the threads execute, as the machine code has them, roughly: what binds these kernels.
double instructions_of(const PoolProblem& problem, int64_t elements) {
  const double items = static_cast<double>(output_of(problem).count() / elements);
  const double each = static_cast<double>(elements);
  if (problem.pass == PoolPass::forward) {
    return items * (36 + 4 * each + (5 + 7 * each) * problem.kernel[0] * problem.kernel[1]);
  }
  if (problem.pass != PoolPass::backward) return items * 40;
  const auto windows = [&](int axis) {
    return static_cast<double>(ceil_div(problem.kernel[axis], problem.stride[axis]));
  };
  return items * (36 + 4 * each + (17 + 8 * each) * windows(0) * windows(1));
}

// As tests/core count them, of 3x3 with stride 1 in 16 bits and 2x2 with stride 2 in float64: 1.13 to 1.8.
constexpr double kSectorsByElements = 1.4;

Description describe(const PoolProblem& problem, int64_t elements) {
  Description description;
  description.blocks = static_cast<unsigned>(blocks_of(problem, elements));
  description.threads = kPoolThreads;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  Work work;
  work.bytes = static_cast<double>(description.compulsory_bytes);
  // By elements, a part of each sector is asked for more than once, or for nothing.
  if (elements == 1) work.bytes *= kSectorsByElements;
  work.blocks = description.blocks;
  work.multiply_adds = instructions_of(problem, elements);
  // Whatever the type of the elements, comparing and addressing run at the rate of float32.
  description.predicted_seconds = predict_seconds(work, DataType::float32, problem.target);
  return description;
}

template <typename Index>
Prepared prepare_as(const PoolProblem& problem) {
  const int64_t elements = elements_of(problem);
  Description description = describe(problem, elements);
  if (description.blocks == 0) return {description, [](const LaunchArguments&) {}};
  // By vectors, and for operands that do not begin at a boundary of 16 bytes by elements.
  struct Way {
    PoolParameters<Index> parameters;
    PoolKernel<Index> kernel;
    unsigned blocks;
  };
  const auto way_of = [&](int64_t by) {
    return Way{parameters_of<Index>(problem, by), kernel_of<Index>(problem, by > 1),
               static_cast<unsigned>(blocks_of(problem, by))};
  };
  const Way likely = way_of(elements), by_elements = way_of(1);
  auto launch = [=](const LaunchArguments& arguments) {
    static const char* const names[] = {"max_pool_forward", "max_pool_backward", "max_pool_gather", "max_pool_indices"};
    auto [x, y, offsets, indices, unused] = arguments.pointers;
    bool is_aligned = true;
    for (const void* pointer : {x, y, offsets}) {
      is_aligned = is_aligned && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
    }
    const Way& way = is_aligned ? likely : by_elements;
    PoolParameters<Index> p = way.parameters;
    const bool backward = is_backward(problem), is_indices = problem.pass == PoolPass::indices;
    p.input = backward ? y : x;
    p.output = backward ? x : is_indices ? indices : y;
    p.offsets = offsets;
    int64_t size = size_of(problem.dtype);
    LaunchShape shape{names[static_cast<int>(problem.pass)], way.blocks, description.threads, 0, kPoolThreads};
    launch_kernel(shape, way.kernel, p,
                  {{"x", is_indices ? nullptr : x, bytes_of(problem.x, size), backward},
                   {"y", is_indices ? nullptr : y, bytes_of(problem.y, size), !backward},
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
  return reason_for_blocks(std::max(blocks_of(problem, 1), blocks_of(problem, elements_of(problem))));
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
