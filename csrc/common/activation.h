// What an epilogue can apply to an output, with PyTorch's definitions, in the accumulator's precision. NaN stays NaN.
#pragma once

#include <cmath>

#include "common/host_device.h"
#include "common/problem.h"

namespace fastconv {

template <typename Value>
FASTCONV_HOST_DEVICE inline Value activate(Activation activation, Value x) {
  switch (activation) {
    case Activation::identity:
      return x;
    case Activation::relu:
      return x < Value(0) ? Value(0) : x;
    case Activation::leaky_relu:
      return x > Value(0) ? x : x * Value(0.01);
    case Activation::silu:
      return x / (Value(1) + std::exp(-x));
    case Activation::gelu:
      return x * Value(0.5) * (Value(1) + std::erf(x * Value(0.70710678118654752440)));
    case Activation::sigmoid:
      return Value(1) / (Value(1) + std::exp(-x));
    case Activation::hardswish: {
      Value shifted = x + Value(3);
      Value clamped = shifted < Value(0) ? Value(0) : (shifted > Value(6) ? Value(6) : shifted);
      return x * clamped / Value(6);
    }
    case Activation::tanh:
      return std::tanh(x);
  }
  return x;
}

}  // namespace fastconv
