#include "launch/max_unpool.h"
#include "launch/tiling.h"

namespace fastconv {

UnpoolKernel max_unpool_kernel_of(DataType dtype, bool in_channels) {
  return with_type(dtype, [&](auto type) -> UnpoolKernel {
    using T = typename decltype(type)::type;
    return in_channels ? max_unpool_channels_kernel<T> : max_unpool_kernel<T>;
  });
}

template <typename Bits>
UnpoolKernel max_unpool_gather_kernel_in(bool has_vectors) {
  return has_vectors ? max_unpool_gather_vectors_kernel<Bits> : max_unpool_gather_kernel<Bits>;
}

UnpoolKernel max_unpool_gather_kernel_of(DataType dtype, bool has_vectors) {
  switch (size_of(dtype)) {
    case 8:
      return max_unpool_gather_kernel_in<uint64_t>(has_vectors);
    case 4:
      return max_unpool_gather_kernel_in<uint32_t>(has_vectors);
    default:
      return max_unpool_gather_kernel_in<uint16_t>(has_vectors);
  }
}

}  // namespace fastconv
