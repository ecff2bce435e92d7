// The last steps of an output: bias, residual, activation, store.
#pragma once

#include "common/numeric.h"
#include "kernels/mma_conv/parameters.h"
#include "ptx/device.h"

namespace fastconv::mma {

// A few neighbouring columns of a row of outputs.
struct ColumnPlace {
  int64_t output, residual;  // offsets of the first, in elements
  int64_t partial;           // its place among the columns of the partial sums
  int bias;                  // its index in the bias
  int count;                 // how many there are; none where it is not positive
};

// Offsets of a row; output is -1 where there is no such row.
struct RowPlace {
  int64_t output, residual, partial;

  __device__ __forceinline__ int64_t output_at(const ColumnPlace& column) const { return output + column.output; }
};

// The switch is outside of the loop, so that the choice is made once for all values.
template <int count>
__device__ __forceinline__ void activate_all(Activation activation, float (&values)[count]) {
  const auto apply = [&values](auto function) {
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = function(values[i]);
  };
  switch (activation) {
    case Activation::identity:
      return;
    case Activation::relu:
      return apply([](float x) { return activate(Activation::relu, x); });
    case Activation::leaky_relu:
      return apply([](float x) { return activate(Activation::leaky_relu, x); });
    case Activation::silu:
      return apply([](float x) { return activate(Activation::silu, x); });
    case Activation::gelu:
      return apply([](float x) { return activate(Activation::gelu, x); });
    case Activation::sigmoid:
      return apply([](float x) { return activate(Activation::sigmoid, x); });
    case Activation::hardswish:
      return apply([](float x) { return activate(Activation::hardswish, x); });
    case Activation::tanh:
      return apply([](float x) { return activate(Activation::tanh, x); });
  }
}

// sums: kChunk = 16 / sizeof(Element) neighbouring columns.
template <class Element, int kChunk, class Row>
__device__ __forceinline__ void finish_chunk(float (&sums)[kChunk], const OutputParameters& out, const Row& row,
                                             const ColumnPlace& column) {
  static_assert(kChunk * sizeof(Element) == 16, "a chunk has 16 bytes");
  const bool whole = out.vector_access && column.count >= kChunk;
  if (out.bias != nullptr) {
    const Element* bias = static_cast<const Element*>(out.bias) + column.bias;  // [columns]
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i < column.count) sums[i] += Numeric<Element>::load(bias[i]);
    }
  }
  if (out.residual != nullptr) {
    const Element* residual = static_cast<const Element*>(out.residual) + row.residual + column.residual;
    if (whole) {
      const auto values = ptx::load_vector<kChunk>(residual);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) sums[i] += Numeric<Element>::load(values[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i < column.count) sums[i] += Numeric<Element>::load(residual[i * out.residual_column_stride]);
      }
    }
  }
  activate_all(out.activation, sums);
  Element* output = static_cast<Element*>(out.output) + row.output_at(column);
  if (whole) {
    ptx::Vector<Element, kChunk> values;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) values[i] = Numeric<Element>::store(sums[i]);
    ptx::store_vector(output, values);
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i < column.count) output[i * out.column_stride] = Numeric<Element>::store(sums[i]);
    }
  }
}

}  // namespace fastconv::mma
