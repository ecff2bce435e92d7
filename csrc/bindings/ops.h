// The ops, by name: which problem is which, and the kernel families of each.
#pragma once

#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "bindings/words.h"
#include "launch/registry.h"

namespace fastconv {

using AnyProblem = std::variant<ConvProblem, PoolProblem, UnpoolProblem, ConvMaxPoolProblem, ConvGlobalMaxProblem,
                                ChannelSumProblem, ActivationBackwardProblem>;

inline std::string op_of(const ConvProblem& problem) {
  return "conv2d_" + name_of(problem.pass, kConvPasses);
}
inline std::string op_of(const PoolProblem& problem) {
  return "max_pool2d_" + name_of(problem.pass, kPoolPasses);
}
inline std::string op_of(const ConvMaxPoolProblem&) {
  return "conv2d_max_pool2d";
}
inline std::string op_of(const ConvGlobalMaxProblem&) {
  return "conv2d_global_max";
}
inline std::string op_of(const UnpoolProblem& problem) {
  return "max_unpool2d_" + name_of(problem.pass, kUnpoolPasses);
}
inline std::string op_of(const ChannelSumProblem&) {
  return "channel_sum";
}
inline std::string op_of(const ActivationBackwardProblem&) {
  return "activation_backward";
}

inline const std::vector<KernelFamily<ConvProblem>>& families(const ConvProblem& problem) {
  return families_of(problem.pass);
}
inline const std::vector<KernelFamily<PoolProblem>>& families(const PoolProblem& problem) {
  return families_of(problem.pass);
}
inline const std::vector<KernelFamily<ConvMaxPoolProblem>>& families(const ConvMaxPoolProblem&) {
  return conv_max_pool_families();
}
inline const std::vector<KernelFamily<ConvGlobalMaxProblem>>& families(const ConvGlobalMaxProblem&) {
  return conv_global_max_families();
}
inline const std::vector<KernelFamily<UnpoolProblem>>& families(const UnpoolProblem& problem) {
  return families_of(problem.pass);
}
inline const std::vector<KernelFamily<ChannelSumProblem>>& families(const ChannelSumProblem&) {
  return channel_sum_families();
}
inline const std::vector<KernelFamily<ActivationBackwardProblem>>& families(const ActivationBackwardProblem&) {
  return activation_backward_families();
}

// (op, kernel, description) of every family.
inline std::vector<std::tuple<std::string, std::string, std::string>> all_kernels() {
  std::vector<std::tuple<std::string, std::string, std::string>> all;
  auto add = [&](const std::string& op, const auto& list) {
    for (const auto& family : list) all.emplace_back(op, family.name, family.description);
  };
  for (const auto& [name, pass] : kConvPasses) add("conv2d_" + std::string(name), families_of(pass));
  for (const auto& [name, pass] : kPoolPasses) add("max_pool2d_" + std::string(name), families_of(pass));
  add("conv2d_max_pool2d", conv_max_pool_families());
  add("conv2d_global_max", conv_global_max_families());
  for (const auto& [name, pass] : kUnpoolPasses) add("max_unpool2d_" + std::string(name), families_of(pass));
  add("channel_sum", channel_sum_families());
  add("activation_backward", activation_backward_families());
  return all;
}

}  // namespace fastconv
