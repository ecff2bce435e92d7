// dz = activation'(saved) * dy, element by element: two reads and a write of 16 bytes a thread where the operands allow
// it, in any layout.
#pragma once

#include "common/activation.h"
#include "common/fast_division.h"
#include "common/numeric.h"
#include "kernels/index.cuh"
#include "ptx/device.h"

namespace fastconv {

constexpr int kActivationBackwardThreads = 256;

// The elements of the tensors are visited in the order of dz's memory: dimension 3 is the innermost there. Dimensions
// that continue each other in all three tensors are one.
template <typename Index>
struct ActivationBackwardParameters {
  const void* dy;
  const void* saved;
  void* dz;
  Index dy_strides[4], saved_strides[4], dz_strides[4];
  Index length;                       // of the innermost dimension, in elements
  Unsigned<Index> items;              // pieces of it
  DividerOf<Index> pieces, sizes[2];  // of the innermost dimension; sizes of dimensions 2 and 1
  Activation activation;
};

// `count` neighbours along a stride of 0 or 1 in one load; along others one by one. `present` of them exist.
template <typename T, typename Index, int count>
__device__ __forceinline__ ptx::Vector<T, count> load_piece(const T* source, Index stride, int present) {
  if (count > 1 && stride == 1 && present == count) return ptx::load_vector<count>(source);
  ptx::Vector<T, count> values;
#pragma unroll
  for (int i = 0; i < count; ++i) values[i] = source[i < present ? i * stride : 0];
  return values;
}

// kPiece: elements that a thread takes, neighbours in dz.
template <typename T, typename Index, int kPiece>
__global__ void __launch_bounds__(kActivationBackwardThreads)
    activation_backward_kernel(const __grid_constant__ ActivationBackwardParameters<Index> p) {
  using Offset = Unsigned<Index>;
  using Value = AccumulatorOf<T>;
  const Offset item = static_cast<Offset>(blockIdx.x) * kActivationBackwardThreads + threadIdx.x;
  if (item >= p.items) return;
  Offset inner = item;
  Offset first = p.pieces.split(inner);
  Offset third = first;
  first = p.sizes[0].split(third);
  Offset second = first;
  first = p.sizes[1].split(second);
  inner *= kPiece;
  const auto offset = [&](const Index(&strides)[4]) {
    return static_cast<Index>(first * strides[0] + second * strides[1] + third * strides[2] + inner * strides[3]);
  };
  const int present = static_cast<int>(min(static_cast<Offset>(kPiece), static_cast<Offset>(p.length) - inner));
  const auto dy =
      load_piece<T, Index, kPiece>(static_cast<const T*>(p.dy) + offset(p.dy_strides), p.dy_strides[3], present);
  const auto saved = load_piece<T, Index, kPiece>(static_cast<const T*>(p.saved) + offset(p.saved_strides),
                                                  p.saved_strides[3], present);

  ptx::Vector<T, kPiece> dz = dy;
  const auto apply = [&](auto activation) {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      dz[i] = Numeric<T>::store(
          activation_backward<Value>(decltype(activation)::value, Numeric<T>::load(dy[i]), Numeric<T>::load(saved[i])));
    }
  };
  using A = Activation;
  switch (p.activation) {  // once for all elements
    case A::identity:
      break;
    case A::relu:
      apply(std::integral_constant<A, A::relu>());
      break;
    case A::leaky_relu:
      apply(std::integral_constant<A, A::leaky_relu>());
      break;
    case A::silu:
      apply(std::integral_constant<A, A::silu>());
      break;
    case A::gelu:
      apply(std::integral_constant<A, A::gelu>());
      break;
    case A::sigmoid:
      apply(std::integral_constant<A, A::sigmoid>());
      break;
    case A::hardswish:
      apply(std::integral_constant<A, A::hardswish>());
      break;
    case A::tanh:
      apply(std::integral_constant<A, A::tanh>());
      break;
  }

  T* destination = static_cast<T*>(p.dz) + offset(p.dz_strides);
  if (kPiece > 1 && present == kPiece) {
    ptx::store_vector(destination, dz);
  } else {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      if (i < present) destination[i * p.dz_strides[3]] = dz[i];
    }
  }
}

}  // namespace fastconv
