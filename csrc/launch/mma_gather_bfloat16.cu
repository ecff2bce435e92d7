#include "launch/mma_gather_kernels.h"

namespace fastconv::mma {

template <>
const KernelSet<GatherParameters>& gather_kernels<BFloat16, Precision::native>() {
  return compiled_gather_kernels<BFloat16, Precision::native, kGatherTiles16, kNarrowGatherTiles16>();
}

}  // namespace fastconv::mma
