#include "launch/staged_wgrad.h"

namespace fastconv::staged {

template <>
const std::vector<WgradKernel>& wgrad_kernels<float, mma::Precision::tf32>() {
  return compiled_wgrad_kernels<float, mma::Precision::tf32>();
}

}  // namespace fastconv::staged
