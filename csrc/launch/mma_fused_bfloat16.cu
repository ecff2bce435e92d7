#include "launch/mma_fused_kernels.h"

namespace fastconv::mma {

template <>
const FusedKernels& fused_kernels<BFloat16, Precision::native>() {
  return compiled_fused_kernels<BFloat16, Precision::native, kFusedTiles16, kNarrowGatherTiles16>();
}

}  // namespace fastconv::mma
