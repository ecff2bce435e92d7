// The host's side of kernels/channel_sum.cuh.
#pragma once

#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ChannelSumProblem> channel_sum;

// For the families of other ops that need a channel sum as well: pointers of the result's launch are (x, sums).
Prepared prepare_channel_sum(const ChannelSumProblem& problem);

}  // namespace fastconv
