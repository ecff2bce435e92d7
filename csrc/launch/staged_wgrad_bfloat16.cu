#include "launch/staged_wgrad.h"

namespace fastconv::staged {

template <>
const std::vector<WgradKernel>& wgrad_kernels<BFloat16, mma::Precision::native>() {
  return compiled_wgrad_kernels<BFloat16, mma::Precision::native>();
}

}  // namespace fastconv::staged
