#include "launch/pointwise_conv.h"

namespace fastconv::mma {

template <>
const KernelSet<PointwiseParameters>& pointwise_kernels<BFloat16>(PointwisePass pass) {
  if (pass == PointwisePass::fprop) return compiled_pointwise_kernels<BFloat16, PointwisePass::fprop>();
  if (pass == PointwisePass::dgrad) return compiled_pointwise_kernels<BFloat16, PointwisePass::dgrad>();
  return compiled_pointwise_kernels<BFloat16, PointwisePass::wgrad>();
}

}  // namespace fastconv::mma
