#include "launch/max_pool.h"

namespace fastconv {

template <typename Index>
PoolKernel<Index> max_pool_gather_kernel_of(DataType dtype) {
  switch (size_of(dtype)) {
    case 8:
      return max_pool_gather_kernel<uint64_t, Index>;
    case 4:
      return max_pool_gather_kernel<uint32_t, Index>;
    default:
      return max_pool_gather_kernel<uint16_t, Index>;
  }
}

template <typename Index>
PoolKernel<Index> max_pool_indices_kernel_of() {
  return max_pool_indices_kernel<Index>;
}

template PoolKernel<int32_t> max_pool_gather_kernel_of(DataType);
template PoolKernel<int64_t> max_pool_gather_kernel_of(DataType);
template PoolKernel<int32_t> max_pool_indices_kernel_of();
template PoolKernel<int64_t> max_pool_indices_kernel_of();

}  // namespace fastconv
