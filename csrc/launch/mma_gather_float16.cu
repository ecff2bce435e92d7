#include "launch/mma_gather_kernels.h"

namespace fastconv::mma {

template <>
const KernelSet<GatherParameters>& gather_kernels<Half, Precision::native>() {
  return compiled_gather_kernels<Half, Precision::native, kGatherTiles16, kNarrowGatherTiles16>();
}

}  // namespace fastconv::mma
