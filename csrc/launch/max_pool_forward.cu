#include "launch/max_pool.h"
#include "launch/tiling.h"

namespace fastconv {

template <typename Index>
PoolKernel<Index> max_pool_forward_kernel_of(DataType dtype) {
  return with_type(dtype, [](auto type) -> PoolKernel<Index> {
    return max_pool_forward_kernel<typename decltype(type)::type, Index>;
  });
}

template PoolKernel<int32_t> max_pool_forward_kernel_of(DataType);
template PoolKernel<int64_t> max_pool_forward_kernel_of(DataType);

}  // namespace fastconv
