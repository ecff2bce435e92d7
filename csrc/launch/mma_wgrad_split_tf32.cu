#include "launch/mma_wgrad_kernels.h"

namespace fastconv::mma {

template <>
const KernelSet<WgradParameters>& wgrad_kernels<float, Precision::split_tf32>() {
  return compiled_wgrad_kernels<float, Precision::split_tf32, kWgradTilesSplit, kNarrowWgradTiles32>();
}

}  // namespace fastconv::mma
