#include "launch/pointwise_conv.h"

namespace fastconv::mma {

template <>
const KernelSet<PointwiseParameters>& pointwise_kernels<float, Precision::split_tf32>(PointwisePass pass) {
  return compiled_pointwise_kernels_of<float, Precision::split_tf32, kPointwiseTilesSplit, kNarrowPointwiseTiles32>(
      pass);
}

}  // namespace fastconv::mma
