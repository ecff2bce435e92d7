#include "launch/pointwise_conv.h"

namespace fastconv::mma {

template <>
const KernelSet<PointwiseParameters>& pointwise_kernels<Half>(PointwisePass pass) {
  if (pass == PointwisePass::fprop) return compiled_pointwise_kernels<Half, PointwisePass::fprop>();
  if (pass == PointwisePass::dgrad) return compiled_pointwise_kernels<Half, PointwisePass::dgrad>();
  return compiled_pointwise_kernels<Half, PointwisePass::wgrad>();
}

}  // namespace fastconv::mma
