#include "launch/depthwise_wgrad.h"

#include <algorithm>

#include "launch/split_sum.h"

namespace fastconv {
namespace depthwise {

Parts Parts::of(const ConvProblem& problem, int64_t splits) {
  Parts parts;
  parts.splits = static_cast<int>(splits);
  if (splits == 1) return parts;
  parts.bias_offset = ceil_div(splits * problem.w.count() * 4, 256) * 256;
  parts.bytes = parts.bias_offset + (problem.has_bias ? splits * problem.w.sizes[0] * 4 : 0);
  return parts;
}

int64_t Parts::most_splits(const ConvProblem& problem) {
  const int64_t bytes = (problem.w.count() + (problem.has_bias ? problem.w.sizes[0] : 0)) * 4;
  return std::max<int64_t>((problem.most_workspace_bytes - 256) / bytes, 1);
}

template <typename T>
void add_parts(const ConvProblem& problem, const Parts& parts, const Operand& dw, const LaunchArguments& arguments) {
  if (parts.splits == 1) return;
  auto [x, w, y, bias, residual] = arguments.pointers;
  const auto add = [&](const Operand& output, const float* sums, void* destination) {
    const auto launch = [&](auto index) {
      using Index = typename decltype(index)::type;
      launch_split_sum<T, Index>("depthwise_wgrad, second pass", output, parts.splits, sums, destination,
                                 arguments.stream);
    };
    // The sums' count fits wherever the problem's index does.
    with_index(problem.index_bits, launch);
  };
  add(dw, parts.sums(arguments.workspace), w);
  if (!problem.has_bias) return;
  Operand db;
  db.sizes = {1, problem.w.sizes[0], 1, 1};
  db.strides = {problem.w.sizes[0], 1, 1, 1};
  add(db, parts.bias_sums(arguments.workspace), bias);
}

template void add_parts<float>(const ConvProblem&, const Parts&, const Operand&, const LaunchArguments&);
template void add_parts<Half>(const ConvProblem&, const Parts&, const Operand&, const LaunchArguments&);
template void add_parts<BFloat16>(const ConvProblem&, const Parts&, const Operand&, const LaunchArguments&);

namespace {

const Ways& ways() {
  static const Ways all{&planes_wgrad_way,
                        &band_wgrad_way,
                        &channels_last_wgrad_ways[0],
                        &channels_last_wgrad_ways[1],
                        &channels_last_wgrad_ways[2],
                        &turned_ways[0],
                        &turned_ways[1]};
  return all;
}

}  // namespace
}  // namespace depthwise

constexpr KernelFamily<ConvProblem> depthwise_wgrad = depthwise::family_of<depthwise::ways>(
    "depthwise_wgrad",
    "gradient by weight of a depthwise convolution, with the bias gradient: x and dy cross memory once for all taps of "
    "filters up to 7x7; splits of the sum are added up in order");

}  // namespace fastconv
