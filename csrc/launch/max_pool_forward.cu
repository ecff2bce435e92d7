#include "launch/max_pool.h"
#include "launch/tiling.h"

namespace fastconv {

template <typename Index>
PoolKernel<Index> max_pool_forward_kernel_of(DataType dtype, bool has_vectors) {
  return with_type(dtype, [&](auto type) -> PoolKernel<Index> {
    using T = typename decltype(type)::type;
    constexpr int kElements = 16 / static_cast<int>(sizeof(T));
    return has_vectors ? max_pool_forward_kernel<T, Index, kElements> : max_pool_forward_kernel<T, Index, 1>;
  });
}

template PoolKernel<int32_t> max_pool_forward_kernel_of(DataType, bool);
template PoolKernel<int64_t> max_pool_forward_kernel_of(DataType, bool);

}  // namespace fastconv
