#include "launch/mma_gather_kernels.h"

namespace fastconv::mma {

template <>
const KernelSet<GatherParameters>& gather_kernels<float, Precision::split_tf32>() {
  return compiled_gather_kernels<float, Precision::split_tf32, kGatherTilesSplit, kNarrowGatherTiles32>();
}

}  // namespace fastconv::mma
