#include <algorithm>

#include "launch/max_pool.h"
#include "launch/max_pool_windows.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

// Rows of windows that a thread walks down: long strips read the rows between them once, short ones make more threads.
const std::vector<std::pair<const char*, int64_t>> kStrips{{"rows8", 8}, {"rows2", 2}, {"rows28", 28}};

bool is_backward(const PoolProblem& problem) {
  return problem.pass == PoolPass::backward;
}

int64_t vector_of(const PoolProblem& problem) {
  return 16 / size_of(problem.dtype);
}

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

int64_t strip_of(const std::string& config) {
  for (const auto& [name, rows] : kStrips) {
    if (config == name) return rows;
  }
  return 1;
}

// Why vectors of channels cannot be moved; empty where they can. element_multiple: elements of a vector.
std::string reason_against_strides(const char* name, const Operand& operand, int64_t vector) {
  if (operand.sizes[1] > 1 && operand.strides[1] != 1) {
    return std::string(name) + " has channels " + std::to_string(operand.strides[1]) +
           " elements apart; this kernel wants them side by side (channels_last)";
  }
  for (int i : {0, 2, 3}) {
    if (operand.sizes[i] > 1 && operand.strides[i] % vector != 0) {
      return std::string(name) + " has a stride of " + std::to_string(operand.strides[i]) + ", not a multiple of " +
             std::to_string(vector) + " elements: accesses would not be aligned";
    }
  }
  return "";
}

std::vector<std::string> configs(const PoolProblem&) {
  std::vector<std::string> names;
  for (const auto& strip : kStrips) names.push_back(strip.first);
  return names;
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  std::string reason = reason_against_windows(problem);
  if (!reason.empty()) return reason;
  const int64_t vector = vector_of(problem);
  if (problem.x.sizes[1] % vector != 0) {
    return std::to_string(problem.x.sizes[1]) + " channels are not a multiple of " + std::to_string(vector) +
           ", 16 bytes of them";
  }
  for (const auto& [name, operand] :
       {std::pair<const char*, const Operand&>{"x", problem.x}, {"y", problem.y}, {"offsets", problem.offsets}}) {
    reason = reason_against_strides(name, operand, vector);
    if (!reason.empty()) return reason;
  }
  if (ChannelGeometry(problem, strip_of(config)).items >= int64_t{1} << 31) return "2^31 threads or more";
  return "";
}

ChannelStrides strides_of(const Operand& operand) {
  return {operand.strides[0], operand.strides[2], operand.strides[3]};
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const ChannelGeometry geometry(problem, strip_of(config));
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

  Description description;
  description.blocks = static_cast<unsigned>(geometry.blocks());
  description.threads = kChannelThreads;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.predicted_seconds =
      predict_moving(std::max(geometry.moved_bytes(problem), static_cast<double>(description.compulsory_bytes)),
                     description.blocks, problem);
  description.choices = {{"strip", geometry.strip}};

  const ChannelPoolKernel kernel = [&] {
    switch (problem.dtype) {
      case DataType::float32:
        return channel_pool_kernel_of<float>(problem.pass, problem.kernel[0]);
      case DataType::float16:
        return channel_pool_kernel_of<Half>(problem.pass, problem.kernel[0]);
      default:
        return channel_pool_kernel_of<BFloat16>(problem.pass, problem.kernel[0]);
    }
  }();
  const Prepared general = (backward ? max_pool_backward : max_pool_forward).prepare(problem, "");
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, y, offsets, unused_indices, unused] = arguments.pointers;
    if (!are_aligned({x, y, offsets})) return general.launch(arguments);
    ChannelPoolParameters p = prototype;
    p.input = backward ? y : x;
    p.output = backward ? x : y;
    p.offsets = static_cast<uint8_t*>(offsets);
    const int64_t size = size_of(problem.dtype);
    const LaunchShape shape{backward ? "max_pool_channels_backward" : "max_pool_channels_forward", description.blocks,
                            description.threads, 0, kChannelThreads};
    launch_kernel(shape, kernel, p,
                  {{"x", x, bytes_of(problem.x, size), backward},
                   {"y", y, bytes_of(problem.y, size), !backward},
                   {"offsets", offsets, bytes_of(problem.offsets, 1), !backward}},
                  arguments.stream);
  };
  return {description, launch};
}

}  // namespace

const KernelFamily<PoolProblem> max_pool_channels_forward{
    "max_pool_channels_forward", "channels_last, 2x2 s2 or 3x3 s2 p1: 16 bytes of channels a thread, rows in registers",
    configs, can_implement, prepare};

const KernelFamily<PoolProblem> max_pool_channels_backward{
    "max_pool_channels_backward", "channels_last, 2x2 s2 or 3x3 s2 p1: gathered, 16 bytes of channels a thread",
    configs, can_implement, prepare};

}  // namespace fastconv
