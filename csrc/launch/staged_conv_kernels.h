// Compiles the staged convolution for one element type. Each including source is one type: they are compiled side by
// side.
#pragma once

#include "kernels/staged_conv/staged_conv.cuh"
#include "launch/staged_conv.h"

namespace fastconv::staged {

static_assert(sizeof(Parameters) <= 4096, "kernel parameters have 4 KiB");

// Stems multiply 32 or 64 filters at once; groups are stored 32 filters at a time, 64 bytes of a pixel or more.
template <class Element, mma::Precision precision>
const std::vector<Kernel>& compiled_kernels() {
  static const std::vector<Kernel> all{
      {true, 64, 1, staged_conv<Unit<Element, precision, 8>, 1, true>},
      {true, 32, 1, staged_conv<Unit<Element, precision, 4>, 1, true>},
      {false, 8, 4, staged_conv<Unit<Element, precision, 1>, 4, false>},
      {false, 16, 2, staged_conv<Unit<Element, precision, 2>, 2, false>},
      {false, 32, 1, staged_conv<Unit<Element, precision, 4>, 1, false>},
  };
  return all;
}

}  // namespace fastconv::staged
