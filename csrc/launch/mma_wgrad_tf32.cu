#include "launch/mma_wgrad_kernels.h"

namespace fastconv::mma {

template <>
const KernelSet<WgradParameters>& wgrad_kernels<float, Precision::tf32>() {
  return compiled_wgrad_kernels<float, Precision::tf32, kWgradTilesTf32, kNarrowWgradTiles32>();
}

}  // namespace fastconv::mma
