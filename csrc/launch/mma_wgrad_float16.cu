#include "launch/mma_wgrad_kernels.h"

namespace fastconv::mma {

template <>
const KernelSet<WgradParameters>& wgrad_kernels<Half, Precision::native>() {
  return compiled_wgrad_kernels<Half, Precision::native, kWgradTiles16, kNarrowWgradTiles16>();
}

}  // namespace fastconv::mma
