#include "launch/max_pool_large.h"
#include "launch/tiling.h"

namespace fastconv {

LargePoolKernel large_pool_forward_kernel_of(DataType dtype, LargePoolGroup group) {
  return with_type(dtype, [&](auto type) -> LargePoolKernel {
    using T = typename decltype(type)::type;
    if (group == LargePoolGroup::channels) return max_pool_large_channels_forward_kernel<T>;
    if (group == LargePoolGroup::warp) return max_pool_large_forward_kernel<T, 32>;
    return max_pool_large_forward_kernel<T, kLargePoolThreads>;
  });
}

}  // namespace fastconv
