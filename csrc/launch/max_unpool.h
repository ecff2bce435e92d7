// The host's side of kernels/max_unpool.cuh and max_unpool_gather.cuh.
#pragma once

#include "kernels/max_unpool_gather.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<UnpoolProblem> max_unpool;
extern const KernelFamily<UnpoolProblem> max_unpool_gather;

using UnpoolKernel = void (*)(UnpoolParameters);

// From max_unpool_kernels.cu.
UnpoolKernel max_unpool_kernel_of(DataType dtype, bool in_channels);
UnpoolKernel max_unpool_gather_kernel_of(DataType dtype, bool has_vectors);

}  // namespace fastconv
