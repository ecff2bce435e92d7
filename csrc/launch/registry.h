// What a kernel family tells about itself, and the families of each op.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/problem.h"
#include "launch/launch.h"

namespace fastconv {

// What a launch will be, known before there is any data.
struct Description {
  unsigned blocks = 0;
  int threads = 0;
  int64_t shared_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t flops = 0;             // of the definition, padding taps included
  int64_t compulsory_bytes = 0;  // each operand once
  double predicted_seconds = 0;
  std::vector<std::pair<std::string, int64_t>> choices;  // of this kernel alone: tile sizes, splits
};

// (x, w, y, bias, residual), (x, y, offsets, indices), (x, w, y, bias, offsets or indices) or (x, sums); null where
// absent. See docs/architecture.md.
struct LaunchArguments {
  std::array<void*, 5> pointers{};
  void* workspace = nullptr;
  Stream stream;
};

// A configuration made ready for a problem: everything that does not depend on where the tensors lie.
struct Prepared {
  Description description;
  std::function<void(const LaunchArguments&)> launch;
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
};

// A new kernel is a new entry in these tables, in registry.cu.
const std::vector<KernelFamily<ConvProblem>>& families_of(ConvPass pass);
const std::vector<KernelFamily<PoolProblem>>& families_of(PoolPass pass);
const std::vector<KernelFamily<ConvMaxPoolProblem>>& conv_max_pool_families();
const std::vector<KernelFamily<ConvGlobalMaxProblem>>& conv_global_max_families();
const std::vector<KernelFamily<ChannelSumProblem>>& channel_sum_families();

}  // namespace fastconv
