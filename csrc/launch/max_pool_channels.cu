#include "launch/channel_strips.h"
#include "launch/max_pool_windows.h"

namespace fastconv {
namespace {

struct ChannelGeometry : ChannelStrips {
  ChannelGeometry(const PoolProblem& problem, int64_t longest)
      : ChannelStrips(problem,
                      ceil_div(is_backward(problem) ? ceil_div(problem.x.sizes[3], 2) : problem.y.sizes[3],
                               problem.kernel[0] == 3 ? kChannelColumns<3> : kChannelColumns<2>),
                      is_backward(problem) ? ceil_div(problem.x.sizes[2], 2) : problem.y.sizes[2], longest) {}

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
  return channel_strip_lengths().names();
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  std::string reason = reason_against_windows(problem);
  if (!reason.empty()) return reason;
  reason = reason_against_vectors(problem);
  if (!reason.empty()) return reason;
  return ChannelGeometry(problem, channel_strip_lengths()[config]).reason_against_items();
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const ChannelGeometry geometry(problem, channel_strip_lengths()[config]);
  const bool backward = is_backward(problem);
  ChannelPoolParameters prototype{};
  geometry.give_to(prototype, problem);

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
