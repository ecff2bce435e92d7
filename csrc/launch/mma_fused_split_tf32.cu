#include "launch/mma_fused_kernels.h"

namespace fastconv::mma {

template <>
const FusedKernels& fused_kernels<float, Precision::split_tf32>() {
  return compiled_fused_kernels<float, Precision::split_tf32, kFusedTilesSplit, kNarrowGatherTiles32>();
}

}  // namespace fastconv::mma
