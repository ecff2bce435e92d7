#include "launch/staged_wgrad.h"

namespace fastconv::staged {

template <>
const std::vector<WgradKernel>& wgrad_kernels<Half, mma::Precision::native>() {
  return compiled_wgrad_kernels<Half, mma::Precision::native>();
}

}  // namespace fastconv::staged
