#include "launch/pointwise_conv.h"

namespace fastconv::mma {

template <>
const KernelSet<PointwiseParameters>& pointwise_kernels<float, Precision::tf32>(PointwisePass pass) {
  return compiled_pointwise_kernels_of<float, Precision::tf32, kPointwiseTilesTf32, kNarrowPointwiseTiles32>(pass);
}

}  // namespace fastconv::mma
