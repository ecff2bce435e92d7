#include "launch/max_pool_bands.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

template <typename T>
BandPoolKernel walk_of(int window, int stride) {
  if (window == 2) return max_pool_bands_walk_kernel<2, 1, T>;
  if (window == 5) return max_pool_bands_walk_kernel<5, 1, T>;
  return stride == 1 ? max_pool_bands_walk_kernel<3, 1, T> : max_pool_bands_walk_kernel<3, 2, T>;
}

}  // namespace

BandPoolKernel band_pool_forward_kernel_of(const PoolProblem& problem) {
  if (has_band_walk(problem)) {
    return with_small_type(problem.dtype, [&](auto type) {
      return walk_of<typename decltype(type)::type>(problem.kernel[0], problem.stride[0]);
    });
  }
  return with_type(problem.dtype, [&](auto type) -> BandPoolKernel {
    using T = typename decltype(type)::type;
    return has_band_blocks(problem) ? max_pool_bands_blocks_kernel<T> : max_pool_bands_forward_kernel<T>;
  });
}

}  // namespace fastconv
