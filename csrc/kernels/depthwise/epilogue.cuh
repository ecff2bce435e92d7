// Activations of several sums with one copy of the code: sums move through the first register in turn, because
// registers have no addresses. identity and relu, which cost nothing, are done in place.
#pragma once

#include "common/activation.h"
#include "ptx/device.h"

namespace fastconv::depthwise {

template <int count>
__device__ __forceinline__ void activate_all(Activation activation, float (&values)[count]) {
  if (activation == Activation::identity) return;
  if (activation == Activation::relu) {
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = activate(Activation::relu, values[i]);
    return;
  }
#pragma unroll 1
  for (int turn = 0; turn < count; ++turn) {
    const float first = activate(activation, values[0]);
#pragma unroll
    for (int i = 0; i + 1 < count; ++i) values[i] = values[i + 1];
    values[count - 1] = first;
  }
}

}  // namespace fastconv::depthwise
