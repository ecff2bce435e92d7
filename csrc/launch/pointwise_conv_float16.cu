#include "launch/pointwise_conv.h"

namespace fastconv::mma {

template <>
const KernelSet<PointwiseParameters>& pointwise_kernels<Half, Precision::native>(PointwisePass pass) {
  return compiled_pointwise_kernels_of<Half, Precision::native, kPointwiseTiles16, kNarrowPointwiseTiles16>(pass);
}

}  // namespace fastconv::mma
