#include "launch/mma_gather_kernels.h"

namespace fastconv::mma {

template <>
const KernelSet<GatherParameters>& gather_kernels<float, Precision::tf32>() {
  return compiled_gather_kernels<float, Precision::tf32, kGatherTilesTf32, kNarrowGatherTiles32>();
}

}  // namespace fastconv::mma
