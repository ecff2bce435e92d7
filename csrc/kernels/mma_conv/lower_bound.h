// Activations that are the greater of a bound and the value: a kernel takes it without asking which activation it is.
#pragma once

#include <cmath>

#include "common/activation.h"

namespace fastconv::mma {

FASTCONV_HOST_DEVICE inline bool is_lower_bound(Activation activation) {
  return activation == Activation::identity || activation == Activation::relu;
}

FASTCONV_HOST_DEVICE inline float lower_bound_of(Activation activation) {
  return activation == Activation::relu ? 0.0f : -INFINITY;
}

}  // namespace fastconv::mma
