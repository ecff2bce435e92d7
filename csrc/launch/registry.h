// What a kernel family tells about itself, and the families of each op.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/problem.h"
#include "common/unpool_problem.h"
#include "launch/launch.h"

namespace fastconv {

// What a launch will be, known before there is any data.
struct Description {
  unsigned blocks = 0;
  int threads = 0;
  int64_t shared_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t flops = 0;             // of the definition, padding taps included
  int64_t compulsory_bytes = 0;  // of the problem
  double predicted_seconds = 0;
  std::vector<std::pair<std::string, int64_t>> choices;  // of this kernel alone: tile sizes, splits
};

// (x, w, y, bias, residual), (x, y, offsets, indices), (x, indices, y), (x, w, y, bias, offsets or indices) or (x,
// sums); null where absent. See docs/architecture.md.
struct LaunchArguments {
  std::array<void*, 5> pointers{};
  void* workspace = nullptr;
  const void* packed_weights = nullptr;  // what Packing::pack made of w; null: the launch packs them itself
  Stream stream;
};

// Weights in the order that a kernel wants, as a step of its own, so that it is done once for many launches.
struct Packing {
  int64_t bytes = 0;  // of the packed weights; 0: the kernel reads w as it is
  // With packed weights, a launch does not touch the first so many bytes of the workspace: they need not exist.
  int64_t skipped_workspace = 0;
  std::string key;  // two plans with the same key and dtype pack the same weights alike
  std::function<void(const void* w, void* packed, const Stream&)> pack;
};

// A configuration made ready for a problem: everything that does not depend on where the tensors lie.
struct Prepared {
  Description description;
  std::function<void(const LaunchArguments&)> launch;
  Packing packing = {};
};

template <class Problem>
struct KernelFamily {
  const char* name;
  const char* description;
  // All the configurations worth a look, likeliest first. Each prints itself; "" where there is only one.
  std::vector<std::string> (*configs)(const Problem&);
  // One line that says why this configuration of `configs` cannot run the problem; empty where it can.
  std::string (*can_implement)(const Problem&, const std::string& config);
  // Called only where can_implement agreed.
  Prepared (*prepare)(const Problem&, const std::string& config);
  // Whether can_implement judges padding modes. A family that does not say so knows zeros only, and is asked no
  // further.
  bool knows_padding_modes = false;
};

// For kernels, or tiles of kernels, without the index maps of the other padding modes.
inline std::string reason_for_padding(const ConvProblem& problem) {
  if (problem.is_zero_padded()) return "";
  return std::string("padding mode ") + name_of(problem.padding_mode) + ": this kernel knows zeros only";
}

inline const ConvProblem* convolution_of(const ConvProblem& problem) {
  return &problem;
}
inline const ConvProblem* convolution_of(const ConvMaxPoolProblem& problem) {
  return &problem.conv;
}
inline const ConvProblem* convolution_of(const ConvGlobalMaxProblem& problem) {
  return &problem.conv;
}
template <class Problem>
const ConvProblem* convolution_of(const Problem&) {
  return nullptr;
}

// One line that says why the family cannot run the problem with this configuration; empty where it can.
template <class Problem>
std::string why_not(const KernelFamily<Problem>& family, const Problem& problem, const std::string& config) {
  const ConvProblem* convolution = convolution_of(problem);
  if (convolution != nullptr && !family.knows_padding_modes) {
    std::string reason = reason_for_padding(*convolution);
    if (!reason.empty()) return reason;
  }
  return family.can_implement(problem, config);
}

// A new kernel is a new entry in these tables, in registry.cu.
const std::vector<KernelFamily<ConvProblem>>& families_of(ConvPass pass);
const std::vector<KernelFamily<PoolProblem>>& families_of(PoolPass pass);
const std::vector<KernelFamily<UnpoolProblem>>& families_of(UnpoolPass pass);
const std::vector<KernelFamily<ConvMaxPoolProblem>>& conv_max_pool_families();
const std::vector<KernelFamily<ConvGlobalMaxProblem>>& conv_global_max_families();
const std::vector<KernelFamily<ChannelSumProblem>>& channel_sum_families();
const std::vector<KernelFamily<ActivationBackwardProblem>>& activation_backward_families();

}  // namespace fastconv
