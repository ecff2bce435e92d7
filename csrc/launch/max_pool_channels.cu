#include <algorithm>

#include "launch/max_pool_windows.h"

namespace fastconv {
namespace {

// Rows of windows that a thread walks down: long strips read the rows between them once, short ones make more threads.
const NumberedConfigs kStrips{{"rows8", 8}, {"rows2", 2}, {"rows28", 28}};

struct ChannelGeometry {
  int64_t vectors, groups, rows, strip, strips, items;

  ChannelGeometry(const PoolProblem& problem, int64_t longest)
      : vectors(problem.x.sizes[1] / vector_of(problem)),
        groups(ceil_div(is_backward(problem) ? ceil_div(problem.x.sizes[3], 2) : problem.y.sizes[3],
                        problem.kernel[0] == 3 ? kChannelColumns<3> : kChannelColumns<2>)),
        rows(is_backward(problem) ? ceil_div(problem.x.sizes[2], 2) : problem.y.sizes[2]),
        strip(ceil_div(rows, ceil_div(rows, std::min(rows, longest)))),
        strips(ceil_div(rows, strip)),
        items(vectors * groups * strips * problem.x.sizes[0]) {}

  int64_t blocks() const { return ceil_div(items, kChannelThreads); }

  // What the threads ask for, columns and rows that neighbours share as often as they are read.
  double moved_bytes(const PoolProblem& problem) const {
    const int64_t size = size_of(problem.dtype), halo = problem.kernel[0] == 3 ? 1 : 0;
    const int64_t windows = problem.kernel[0] == 3 ? kChannelColumns<3> : kChannelColumns<2>;
    const int64_t shared_rows = is_backward(problem) ? strip + halo : 2 * strip + halo;
    const int64_t shared_columns = is_backward(problem) ? windows + halo : 2 * windows + halo;
    const int64_t read = shared_rows * shared_columns * (is_backward(problem) ? size + 1 : size);
    const int64_t written = strip * windows * (is_backward(problem) ? 4 * size : size + 1);
    return static_cast<double>(items * vector_of(problem)) * static_cast<double>(read + written);
  }
};

std::vector<std::string> configs(const PoolProblem&) {
  return kStrips.names();
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  std::string reason = reason_against_windows(problem);
  if (!reason.empty()) return reason;
  reason = reason_against_vectors(problem);
  if (!reason.empty()) return reason;
  if (ChannelGeometry(problem, kStrips[config]).items >= int64_t{1} << 31) return "2^31 threads or more";
  return "";
}

ChannelStrides strides_of(const Operand& operand) {
  return {operand.strides[0], operand.strides[2], operand.strides[3]};
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const ChannelGeometry geometry(problem, kStrips[config]);
  const bool backward = is_backward(problem);

  ChannelPoolParameters prototype{};
  prototype.input_strides = strides_of(backward ? problem.y : problem.x);
  prototype.output_strides = strides_of(backward ? problem.x : problem.y);
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

  Description description = describe_moving(problem, geometry.blocks(), kChannelThreads, geometry.moved_bytes(problem));
  description.choices = {{"strip", geometry.strip}};

  const ChannelPoolKernel kernel = with_small_type(problem.dtype, [&](auto tag) {
    return channel_pool_kernel_of<typename decltype(tag)::type>(problem.pass, problem.kernel[0]);
  });
  return prepare_pool(problem, backward ? "max_pool_channels_backward" : "max_pool_channels_forward", description,
                      kernel, prototype);
}

}  // namespace

const KernelFamily<PoolProblem> max_pool_channels_forward{
    "max_pool_channels_forward", "channels_last, 2x2 s2 or 3x3 s2 p1: 16 bytes of channels a thread, rows in registers",
    configs, can_implement, prepare};

const KernelFamily<PoolProblem> max_pool_channels_backward{
    "max_pool_channels_backward", "channels_last, 2x2 s2 or 3x3 s2 p1: gathered, 16 bytes of channels a thread",
    configs, can_implement, prepare};

}  // namespace fastconv
