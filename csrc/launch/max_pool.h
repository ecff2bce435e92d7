// The host's side of kernels/max_pool.cuh: a family for each pooling op.
#pragma once

#include "kernels/max_pool.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<PoolProblem> max_pool_forward;
extern const KernelFamily<PoolProblem> max_pool_backward;
extern const KernelFamily<PoolProblem> max_pool_gather;
extern const KernelFamily<PoolProblem> max_pool_indices;

template <typename Index>
using PoolKernel = void (*)(PoolParameters<Index>);

// The kernel for a number type, from the file max_pool_<pass>.cu. has_vectors: a thread has 16 bytes of channels.
template <typename Index>
PoolKernel<Index> max_pool_forward_kernel_of(DataType dtype, bool has_vectors);
template <typename Index>
PoolKernel<Index> max_pool_backward_kernel_of(DataType dtype, bool has_vectors);
template <typename Index>
PoolKernel<Index> max_pool_gather_kernel_of(DataType dtype);
template <typename Index>
PoolKernel<Index> max_pool_indices_kernel_of();

}  // namespace fastconv
