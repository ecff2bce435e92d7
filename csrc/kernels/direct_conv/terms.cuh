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
  const Index rows[1] = {y}, columns[1] = {x};
  const Index row_images = images_of(p, 0, rows), column_images = images_of(p, 1, columns);
  for (int r = 0; r < p.rows.taps; ++r) {
    for (Index row_image = 0; row_image < row_images; ++row_image) {
      const Index row = mapped_input(p, 0, y, r, row_image);
      if (row < 0) continue;
      for (int s = 0; s < p.columns.taps; ++s) {
        for (Index column_image = 0; column_image < column_images; ++column_image) {
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
  }
  return sum;
}

}  // namespace fastconv
