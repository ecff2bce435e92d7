#include "launch/max_unpool.h"
#include "launch/tiling.h"

namespace fastconv {

UnpoolKernel max_unpool_kernel_of(DataType dtype, bool in_channels) {
  return with_type(dtype, [&](auto type) -> UnpoolKernel {
    using T = typename decltype(type)::type;
    return in_channels ? max_unpool_channels_kernel<T> : max_unpool_kernel<T>;
  });
}

UnpoolKernel max_unpool_gather_kernel_of(DataType dtype) {
  switch (size_of(dtype)) {
    case 8:
      return max_unpool_gather_kernel<uint64_t>;
    case 4:
      return max_unpool_gather_kernel<uint32_t>;
    default:
      return max_unpool_gather_kernel<uint16_t>;
  }
}

}  // namespace fastconv
