#include "launch/max_pool_walk.h"
#include "launch/tiling.h"

namespace fastconv {

ChannelWalkKernel channel_walk_kernel_of(DataType dtype, int window, int stride) {
  return with_small_type(dtype, [&](auto type) -> ChannelWalkKernel {
    using T = typename decltype(type)::type;
    if (window == 2) return max_pool_walk_forward_kernel<2, 1, T>;
    if (window == 5) return max_pool_walk_forward_kernel<5, 1, T>;
    return stride == 1 ? max_pool_walk_forward_kernel<3, 1, T> : max_pool_walk_forward_kernel<3, 2, T>;
  });
}

}  // namespace fastconv
