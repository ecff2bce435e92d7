#include "launch/registry.h"

#include "launch/channel_sum.h"
#include "launch/direct_conv.h"
#include "launch/direct_wgrad.h"

namespace fastconv {

const std::vector<KernelFamily<ConvProblem>>& families_of(ConvPass pass) {
  static const std::vector<KernelFamily<ConvProblem>> fprop{direct_fprop};
  static const std::vector<KernelFamily<ConvProblem>> dgrad{direct_dgrad};
  static const std::vector<KernelFamily<ConvProblem>> wgrad{direct_wgrad};
  return pass == ConvPass::fprop ? fprop : pass == ConvPass::dgrad ? dgrad : wgrad;
}

const std::vector<KernelFamily<PoolProblem>>& families_of(PoolPass) {
  static const std::vector<KernelFamily<PoolProblem>> none{};
  return none;
}

const std::vector<KernelFamily<ChannelSumProblem>>& channel_sum_families() {
  static const std::vector<KernelFamily<ChannelSumProblem>> all{channel_sum};
  return all;
}

}  // namespace fastconv
