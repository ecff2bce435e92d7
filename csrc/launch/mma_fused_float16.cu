#include "launch/mma_fused_kernels.h"

namespace fastconv::mma {

template <>
const FusedKernels& fused_kernels<Half, Precision::native>() {
  return compiled_fused_kernels<Half, Precision::native, kFusedTiles16, kNarrowGatherTiles16>();
}

}  // namespace fastconv::mma
