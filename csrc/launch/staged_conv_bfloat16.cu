#include "launch/staged_conv_kernels.h"

namespace fastconv::staged {

template <>
const std::vector<Kernel>& kernels<BFloat16, mma::Precision::native>() {
  return compiled_kernels<BFloat16, mma::Precision::native>();
}

}  // namespace fastconv::staged
