#include "launch/max_pool_walk.h"

#include "launch/channel_strips.h"
#include "launch/max_pool_bands.h"
#include "launch/max_pool_windows.h"

namespace fastconv {
namespace {

// Neighbouring windows of a thread.
int64_t columns_of(const PoolProblem& problem) {
  if (problem.stride[0] == 2) return kChannelWalkColumns<3, 2>;
  return problem.kernel[0] == 5 ? kChannelWalkColumns<5, 1> : kChannelWalkColumns<3, 1>;
}

struct WalkGeometry : ChannelStrips {
  WalkGeometry(const PoolProblem& problem, int64_t longest)
      : ChannelStrips(problem, ceil_div(problem.y.sizes[3], columns_of(problem)), problem.y.sizes[2], longest) {}

  // Rows that two strips share are asked for twice.
  double share_of_rows(const PoolProblem& problem) const {
    return 1 +
           static_cast<double>(problem.kernel[0] - problem.stride[0]) / static_cast<double>(strip * problem.stride[0]);
  }
};

std::vector<std::string> configs(const PoolProblem&) {
  return channel_strip_lengths().names();
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  if (reason_against_windows(problem).empty()) return "max_pool_channels is made for this window and type";
  if (!has_band_walk(problem)) {
    return "this kernel is for 2x2, 3x3 and 5x5 with stride 1 and 3x3 with stride 2, dilation 1, of float32 and "
           "smaller";
  }
  if (problem.offsets_type != OffsetType::uint8) return "offsets of int32: this kernel writes one byte";
  if (problem.x.count() == 0 || problem.y.count() == 0) return "an operand is empty";
  for (int axis = 2; axis < 4; ++axis) {
    if (problem.x.sizes[axis] >= int64_t{1} << 29) return "2^29 rows or columns or more";
  }
  const std::string reason = reason_against_vectors(problem);
  if (!reason.empty()) return reason;
  return WalkGeometry(problem, channel_strip_lengths()[config]).reason_against_items();
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const WalkGeometry geometry(problem, channel_strip_lengths()[config]);
  ChannelWalkParameters prototype{};
  geometry.give_to(prototype, problem);
  prototype.row_padding = problem.padding[0];
  prototype.column_padding = problem.padding[1];

  const double shared_rows = geometry.share_of_rows(problem);
  const double moved = static_cast<double>(problem.x.count() * size_of(problem.dtype)) * shared_rows +
                       static_cast<double>(problem.y.count() * (size_of(problem.dtype) + 1));
  // As the machine code has them, roughly: of an output.
  const double each = problem.stride[0] == 2 ? 50 : problem.kernel[0] == 5 ? 55 : 12 * problem.kernel[0];
  const double instructions = static_cast<double>(problem.y.count()) * each * (0.5 + 0.5 * shared_rows);
  Description description = describe_moving(problem, geometry.blocks(), kChannelThreads, moved, instructions);
  description.choices = {{"strip", geometry.strip}};
  return prepare_pool(problem, "max_pool_walk_forward", description,
                      channel_walk_kernel_of(problem.dtype, problem.kernel[0], problem.stride[0]), prototype);
}

}  // namespace

const KernelFamily<PoolProblem> max_pool_walk_forward{
    "max_pool_walk_forward",
    "channels_last, small windows that overlap: 16 bytes of channels a thread, rows in registers", configs,
    can_implement, prepare};

}  // namespace fastconv
