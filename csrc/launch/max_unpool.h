// The host's side of kernels/max_unpool.cuh.
#pragma once

#include "common/unpool_problem.h"
#include "kernels/max_unpool.cuh"
#include "launch/registry.h"

namespace fastconv {

// In registry.cu. LaunchArguments has (x, indices, y).
const std::vector<KernelFamily<UnpoolProblem>>& families_of(UnpoolPass pass);

extern const KernelFamily<UnpoolProblem> max_unpool;
extern const KernelFamily<UnpoolProblem> max_unpool_gather;

using UnpoolKernel = void (*)(UnpoolParameters);

// From max_unpool_kernels.cu.
UnpoolKernel max_unpool_kernel_of(DataType dtype, bool in_channels);
UnpoolKernel max_unpool_gather_kernel_of(DataType dtype);

}  // namespace fastconv
