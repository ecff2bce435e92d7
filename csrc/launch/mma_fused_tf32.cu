#include "launch/mma_fused_kernels.h"

namespace fastconv::mma {

template <>
const FusedKernels& fused_kernels<float, Precision::tf32>() {
  return compiled_fused_kernels<float, Precision::tf32, kFusedTilesTf32, kNarrowGatherTiles32>();
}

}  // namespace fastconv::mma
