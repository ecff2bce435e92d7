#include "launch/staged_conv_kernels.h"

namespace fastconv::staged {

template <>
const std::vector<Kernel>& kernels<Half, mma::Precision::native>() {
  return compiled_kernels<Half, mma::Precision::native>();
}

}  // namespace fastconv::staged
