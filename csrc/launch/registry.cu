#include "launch/registry.h"

#include "launch/activation_backward.h"
#include "launch/channel_sum.h"
#include "launch/depthwise.h"
#include "launch/direct_conv.h"
#include "launch/direct_wgrad.h"
#include "launch/max_pool.h"
#include "launch/max_pool_bands.h"
#include "launch/max_pool_large.h"
#include "launch/max_pool_walk.h"
#include "launch/max_pool_windows.h"
#include "launch/max_unpool.h"
#include "launch/mma_conv.h"
#include "launch/mma_fused.h"
#include "launch/patch_conv.h"
#include "launch/pointwise_conv.h"
#include "launch/staged_conv.h"
#include "launch/staged_wgrad.h"

namespace fastconv {

const std::vector<KernelFamily<ConvProblem>>& families_of(ConvPass pass) {
  static const std::vector<KernelFamily<ConvProblem>> fprop{mma_fprop,  pointwise_fprop, patch_fprop, depthwise_fprop,
                                                            stem_fprop, grouped_fprop,   direct_fprop};
  static const std::vector<KernelFamily<ConvProblem>> dgrad{mma_dgrad,       pointwise_dgrad, patch_dgrad,
                                                            depthwise_dgrad, grouped_dgrad,   direct_dgrad};
  static const std::vector<KernelFamily<ConvProblem>> wgrad{mma_wgrad,  pointwise_wgrad, patch_wgrad, depthwise_wgrad,
                                                            stem_wgrad, grouped_wgrad,   direct_wgrad};
  return pass == ConvPass::fprop ? fprop : pass == ConvPass::dgrad ? dgrad : wgrad;
}

const std::vector<KernelFamily<PoolProblem>>& families_of(PoolPass pass) {
  static const std::vector<KernelFamily<PoolProblem>> forward{max_pool_planes_forward, max_pool_channels_forward,
                                                              max_pool_large_forward,  max_pool_bands_forward,
                                                              max_pool_walk_forward,   max_pool_forward};
  static const std::vector<KernelFamily<PoolProblem>> backward{max_pool_planes_backward, max_pool_channels_backward,
                                                               max_pool_large_backward, max_pool_bands_backward,
                                                               max_pool_backward};
  static const std::vector<KernelFamily<PoolProblem>> gather{max_pool_gather};
  static const std::vector<KernelFamily<PoolProblem>> indices{max_pool_indices};
  switch (pass) {
    case PoolPass::forward:
      return forward;
    case PoolPass::backward:
      return backward;
    case PoolPass::gather:
      return gather;
    default:
      return indices;
  }
}

const std::vector<KernelFamily<ConvMaxPoolProblem>>& conv_max_pool_families() {
  static const std::vector<KernelFamily<ConvMaxPoolProblem>> all{mma_conv_max_pool};
  return all;
}

const std::vector<KernelFamily<ConvGlobalMaxProblem>>& conv_global_max_families() {
  static const std::vector<KernelFamily<ConvGlobalMaxProblem>> all{mma_conv_global_max};
  return all;
}

const std::vector<KernelFamily<UnpoolProblem>>& families_of(UnpoolPass pass) {
  static const std::vector<KernelFamily<UnpoolProblem>> unpool{max_unpool};
  static const std::vector<KernelFamily<UnpoolProblem>> gather{max_unpool_gather};
  return pass == UnpoolPass::gather ? gather : unpool;
}

const std::vector<KernelFamily<ChannelSumProblem>>& channel_sum_families() {
  static const std::vector<KernelFamily<ChannelSumProblem>> all{channel_sum};
  return all;
}

const std::vector<KernelFamily<ActivationBackwardProblem>>& activation_backward_families() {
  static const std::vector<KernelFamily<ActivationBackwardProblem>> all{activation_backward_family};
  return all;
}

}  // namespace fastconv
