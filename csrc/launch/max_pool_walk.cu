#include "launch/max_pool_walk.h"

#include <algorithm>

#include "launch/max_pool_bands.h"
#include "launch/max_pool_windows.h"

namespace fastconv {
namespace {

// Rows of windows that a thread walks down: long strips read the rows between them once, short ones make more threads.
const NumberedConfigs kStrips{{"rows8", 8}, {"rows2", 2}, {"rows28", 28}};

// Neighbouring windows of a thread.
int64_t columns_of(const PoolProblem& problem) {
  if (problem.stride[0] == 2) return kChannelWalkColumns<3, 2>;
  return problem.kernel[0] == 5 ? kChannelWalkColumns<5, 1> : kChannelWalkColumns<3, 1>;
}

struct WalkGeometry {
  int64_t vectors, groups, rows, strip, strips, items;

  WalkGeometry(const PoolProblem& problem, int64_t longest)
      : vectors(problem.x.sizes[1] / vector_of(problem)),
        groups(ceil_div(problem.y.sizes[3], columns_of(problem))),
        rows(problem.y.sizes[2]),
        strip(ceil_div(rows, ceil_div(rows, std::min(rows, longest)))),
        strips(ceil_div(rows, strip)),
        items(vectors * groups * strips * problem.x.sizes[0]) {}

  int64_t blocks() const { return ceil_div(items, kChannelThreads); }

  // Rows that two strips share are asked for twice.
  double share_of_rows(const PoolProblem& problem) const {
    return 1 +
           static_cast<double>(problem.kernel[0] - problem.stride[0]) / static_cast<double>(strip * problem.stride[0]);
  }
};

std::vector<std::string> configs(const PoolProblem&) {
  return kStrips.names();
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
  if (WalkGeometry(problem, kStrips[config]).items >= int64_t{1} << 31) return "2^31 threads or more";
  return "";
}

ChannelStrides strides_of(const Operand& operand) {
  return {operand.strides[0], operand.strides[2], operand.strides[3]};
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const WalkGeometry geometry(problem, kStrips[config]);
  ChannelWalkParameters prototype{};
  prototype.input_strides = strides_of(problem.x);
  prototype.output_strides = strides_of(problem.y);
  prototype.offset_strides = strides_of(problem.offsets);
  prototype.height = static_cast<int>(problem.x.sizes[2]);
  prototype.width = static_cast<int>(problem.x.sizes[3]);
  prototype.output_height = static_cast<int>(problem.y.sizes[2]);
  prototype.output_width = static_cast<int>(problem.y.sizes[3]);
  prototype.rows = static_cast<int>(geometry.rows);
  prototype.strip = static_cast<int>(geometry.strip);
  prototype.items = static_cast<uint32_t>(geometry.items);
  prototype.vectors = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.vectors));
  prototype.groups = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.groups));
  prototype.strips = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.strips));
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
