#include "launch/staged_conv_kernels.h"

namespace fastconv::staged {

template <>
const std::vector<Kernel>& kernels<float, mma::Precision::tf32>() {
  return compiled_kernels<float, mma::Precision::tf32>();
}

}  // namespace fastconv::staged
