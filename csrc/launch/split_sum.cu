#include "launch/split_sum.h"

namespace fastconv {

template <typename T, typename Index>
SplitSumKernel<Index> split_sum_kernel_of() {
  return split_sum_kernel<T, Index>;
}

template SplitSumKernel<int32_t> split_sum_kernel_of<double, int32_t>();
template SplitSumKernel<int64_t> split_sum_kernel_of<double, int64_t>();
template SplitSumKernel<int32_t> split_sum_kernel_of<float, int32_t>();
template SplitSumKernel<int64_t> split_sum_kernel_of<float, int64_t>();
template SplitSumKernel<int32_t> split_sum_kernel_of<Half, int32_t>();
template SplitSumKernel<int64_t> split_sum_kernel_of<Half, int64_t>();
template SplitSumKernel<int32_t> split_sum_kernel_of<BFloat16, int32_t>();
template SplitSumKernel<int64_t> split_sum_kernel_of<BFloat16, int64_t>();

}  // namespace fastconv
