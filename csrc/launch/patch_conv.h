// Convolutions whose filters lie side by side (a stride as large as the filter: 16x16 s16) as convolutions of the
// general tensor-core kernels with whole chunks of channels: patch_fprop, patch_dgrad and patch_wgrad. No data moves.
#pragma once

#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> patch_fprop;
extern const KernelFamily<ConvProblem> patch_dgrad;
extern const KernelFamily<ConvProblem> patch_wgrad;

}  // namespace fastconv
