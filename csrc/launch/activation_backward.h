// The host's side of kernels/activation_backward.cuh.
#pragma once

#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ActivationBackwardProblem> activation_backward_family;

}  // namespace fastconv
