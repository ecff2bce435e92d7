#include "launch/max_pool_large.h"

#include <algorithm>

#include "launch/max_pool_moving.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

// Smaller windows are read by one thread in no more steps than it takes many to agree.
constexpr int64_t kSmallestWindow = 32;

LargePoolGroup group_of(const std::string& config) {
  return config == "warp" ? LargePoolGroup::warp : config == "block" ? LargePoolGroup::block : LargePoolGroup::channels;
}

bool is_global(const PoolProblem& problem) {
  return problem.y.sizes[2] == 1 && problem.y.sizes[3] == 1;
}

// A warp reads this much of a window with all its lanes busy for a few turns; a block would mostly wait.
constexpr int64_t kWarpBytes = 4096;

std::vector<std::string> configs(const PoolProblem& problem) {
  const int64_t bytes = int64_t{problem.kernel[0]} * problem.kernel[1] * size_of(problem.dtype);
  if (bytes <= kWarpBytes) return {"channels", "warp", "block"};
  return {"channels", "block", "warp"};
}

// Whether the rows [first, end) of every window are one piece of memory.
bool is_one_piece(const PoolProblem& problem) {
  const Operand& image = problem.x;
  const bool has_all_columns =
      is_backward(problem) || (problem.y.sizes[3] == 1 && problem.kernel[1] - problem.padding[1] >= problem.x.sizes[3]);
  return has_all_columns && (image.sizes[3] == 1 || image.strides[3] == 1) &&
         (image.sizes[2] == 1 || image.strides[2] == image.sizes[3]);
}

int64_t lanes_of(const PoolProblem& problem) {
  const int64_t vectors = problem.x.sizes[1] / vector_of(problem);
  int64_t lanes = 1;
  while (lanes < vectors && lanes < 32) lanes *= 2;
  return lanes;
}

int64_t blocks_of(const PoolProblem& problem, LargePoolGroup group) {
  const int64_t images = problem.x.sizes[0] * problem.y.sizes[2] * problem.y.sizes[3];
  if (group == LargePoolGroup::channels) {
    return images * ceil_div(problem.x.sizes[1] / vector_of(problem), lanes_of(problem));
  }
  const int64_t windows = images * problem.x.sizes[1];
  return group == LargePoolGroup::block ? windows : ceil_div(windows, kLargePoolThreads / 32);
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  const int64_t window = int64_t{problem.kernel[0]} * problem.kernel[1];
  if (problem.x.count() == 0 || problem.y.count() == 0) return "an operand is empty";
  if (window < kSmallestWindow) {
    return "a window of " + std::to_string(window) + " elements: this kernel is for " +
           std::to_string(kSmallestWindow) + " or more";
  }
  if (problem.dilation != std::array<int, 2>{1, 1}) return "dilated windows: this kernel is for dilation 1";
  if (is_backward(problem) && !is_global(problem)) {
    return std::to_string(problem.y.sizes[2]) + "x" + std::to_string(problem.y.sizes[3]) +
           " windows an image: this kernel is for one";
  }
  const int64_t height = problem.x.sizes[2], width = problem.x.sizes[3];
  if (height > (int64_t{1} << 30) / width) return "2^30 pixels or more";
  for (int axis = 0; axis < 2; ++axis) {
    // Where a window begins and ends is computed in 32 bits.
    if (problem.kernel[axis] >= 1 << 29 || problem.stride[axis] >= 1 << 29 ||
        (problem.y.sizes[2 + axis] - 1) * problem.stride[axis] >= 1 << 29) {
      return "windows that reach 2^29 rows or columns or more";
    }
  }
  const LargePoolGroup group = group_of(config);
  if (group == LargePoolGroup::channels) {
    // Backward reads y and the offsets once a thread, an element at a time.
    const std::string reason = reason_against_vectors(problem, !is_backward(problem));
    if (!reason.empty()) return reason;
  } else if (width > 1 && problem.x.strides[3] != 1) {
    return "x has columns " + std::to_string(problem.x.strides[3]) +
           " elements apart; this configuration wants them side by side (NCHW)";
  } else if (is_backward(problem) && !is_one_piece(problem)) {
    return "rows of x have gaps between them";
  }
  if (problem.y.count() >= int64_t{1} << 31) return "2^31 windows or more";
  return reason_for_blocks(blocks_of(problem, group));
}

// Instructions that the threads execute, as the machine code has them, roughly: those for an element, which overlapping
// windows read again, and those with which a thread begins and ends.
double instructions_of(const PoolProblem& problem, LargePoolGroup group) {
  const double threads = static_cast<double>(blocks_of(problem, group)) * kLargePoolThreads;
  if (is_backward(problem)) return 7 * static_cast<double>(problem.x.count()) + 60 * threads;
  return 9 * static_cast<double>(problem.flops()) + 100 * threads;
}

LargePoolAxis axis_of(const PoolProblem& problem, int axis) {
  return {static_cast<int>(problem.x.sizes[2 + axis]), static_cast<int>(problem.y.sizes[2 + axis]),
          problem.kernel[axis], problem.stride[axis], problem.padding[axis]};
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const LargePoolGroup group = group_of(config);
  const bool backward = is_backward(problem), in_channels = group == LargePoolGroup::channels;

  LargePoolParameters prototype{};
  prototype.input_strides = Strides<int64_t>::of(backward ? problem.y : problem.x);
  prototype.output_strides = Strides<int64_t>::of(backward ? problem.x : problem.y);
  prototype.offset_strides = Strides<int64_t>::of(problem.offsets);
  prototype.rows = axis_of(problem, 0);
  prototype.columns = axis_of(problem, 1);
  prototype.offsets_are_bytes = problem.offsets_type == OffsetType::uint8;
  prototype.is_one_piece = is_one_piece(problem);
  prototype.windows = problem.y.count();
  prototype.lanes = static_cast<int>(lanes_of(problem));
  prototype.vectors = static_cast<int>(problem.x.sizes[1] / vector_of(problem));
  prototype.channels = FastDivider<uint32_t>(static_cast<uint32_t>(problem.x.sizes[1]));
  prototype.output_rows = FastDivider<uint32_t>(static_cast<uint32_t>(problem.y.sizes[2]));
  prototype.output_columns = FastDivider<uint32_t>(static_cast<uint32_t>(problem.y.sizes[3]));
  prototype.vector_groups =
      FastDivider<uint32_t>(static_cast<uint32_t>(std::max<int64_t>(1, ceil_div(prototype.vectors, prototype.lanes))));

  Description description =
      describe_moving(problem, blocks_of(problem, group), kLargePoolThreads, 0, instructions_of(problem, group));
  description.choices = {{"lanes", in_channels ? prototype.lanes : 1}};

  const LargePoolKernel kernel = backward ? large_pool_backward_kernel_of(problem.dtype, group)
                                          : large_pool_forward_kernel_of(problem.dtype, group);
  return prepare_pool(problem, backward ? "max_pool_large_backward" : "max_pool_large_forward", description, kernel,
                      prototype, {in_channels, in_channels && !backward, in_channels && !backward});
}

}  // namespace

const KernelFamily<PoolProblem> max_pool_large_forward{
    "max_pool_large_forward", "windows of 32 elements or more, up to the image: many threads find one winner", configs,
    can_implement, prepare};

const KernelFamily<PoolProblem> max_pool_large_backward{
    "max_pool_large_backward", "gradient of a global pool: zeros, and one element of each plane", configs,
    can_implement, prepare};

}  // namespace fastconv
