// What stands for a sum of dgrad that is not a number.
#pragma once

#include "kernels/direct_conv/mapped.cuh"

namespace fastconv {

// dgrad: an element's sum over its terms alone, one after another. The kernel gives taps that lie outside of dy zeros
// instead, which an infinite weight turns into NaN. weight: of the element's channel.
template <typename T, typename Index>
__device__ AccumulatorOf<T> sum_of_terms(const DirectConvParameters<Index>& p, const T* weight, Index n, Index channel,
                                         Index y, Index x) {
  const T* dy = static_cast<const T*>(p.input) + n * p.input_strides.batch +
                channel / p.group_outputs * p.reduced_channels * p.input_strides.channel;
  AccumulatorOf<T> sum = 0;
  for (int item = 0; item < p.padded[0].images * p.padded[1].images; ++item) {
    const int row_image = item / p.padded[1].images, column_image = item % p.padded[1].images;
    for (int r = 0; r < p.rows.taps; ++r) {
      const Index row = mapped_input(p, 0, y, r, row_image);
      if (row < 0) continue;
      for (int s = 0; s < p.columns.taps; ++s) {
        const Index column = mapped_input(p, 1, x, s, column_image);
        if (column < 0) continue;
        for (Index k = 0; k < p.reduced_channels; ++k) {
          sum += Numeric<T>::load(
                     dy[k * p.input_strides.channel + row * p.input_strides.row + column * p.input_strides.column]) *
                 Numeric<T>::load(weight[k * p.weight_input + r * p.weight_row + s * p.weight_column]);
        }
      }
    }
  }
  return sum;
}

}  // namespace fastconv
