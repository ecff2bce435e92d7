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

// Whether the derivative is told from the activation's output; else from its input.
inline bool derivative_is_of_output(Activation activation) {
  return activation == Activation::relu || activation == Activation::leaky_relu || activation == Activation::sigmoid ||
         activation == Activation::tanh;
}

// dz of dy, and of the activation's output or input `saved`: see derivative_is_of_output. PyTorch's definitions, where
// the corners fall too; what is only passed on or stopped is not multiplied, so infinities and NaN stay what they are.
template <typename Value>
FASTCONV_HOST_DEVICE inline Value activation_backward(Activation activation, Value dy, Value saved) {
  switch (activation) {
    case Activation::identity:
      return dy;
    case Activation::relu:
      return saved <= Value(0) ? Value(0) : dy;
    case Activation::leaky_relu:
      return saved > Value(0) ? dy : dy * Value(0.01);
    case Activation::silu: {
      const Value s = Value(1) / (Value(1) + std::exp(-saved));
      return dy * s * (Value(1) + saved * (Value(1) - s));
    }
    case Activation::gelu: {
      const Value share = Value(0.5) * (Value(1) + std::erf(saved * Value(0.70710678118654752440)));
      const Value density = std::exp(saved * saved * Value(-0.5)) * Value(0.39894228040143267794);
      return dy * (share + saved * density);
    }
    case Activation::sigmoid:
      return dy * (Value(1) - saved) * saved;
    case Activation::hardswish:
      return saved <= Value(-3) ? Value(0) : saved < Value(3) ? dy * (saved / Value(3) + Value(0.5)) : dy;
    case Activation::tanh:
      return dy * (Value(1) - saved * saved);
  }
  return dy;
}

}  // namespace fastconv
