#include "launch/max_pool_bands.h"
#include "launch/tiling.h"

namespace fastconv {

BandPoolKernel band_pool_backward_kernel_of(const PoolProblem& problem) {
  return with_type(problem.dtype, [](auto type) -> BandPoolKernel {
    return max_pool_bands_backward_kernel<typename decltype(type)::type>;
  });
}

}  // namespace fastconv
