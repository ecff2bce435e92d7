// Padding other than zeros is an index map (kernels/padding.cuh). Forward, a tap beyond the border reads what the map
// says. In dgrad an element also takes what reached its images in the padded input; those have other taps than the
// element's own phase, so there every tap is tried and phases are not used.
#pragma once

#include "kernels/direct_conv/parameters.cuh"

namespace fastconv {

// Mapped padding: where the input of output `position` at a tap lies on this axis, in its image-th way; -1 for none.
// Forward there is one way. position: forward its tap 0 in x, in dgrad the element of dx.
template <typename Index>
__device__ __forceinline__ Index mapped_input(const DirectConvParameters<Index>& p, int axis_number, Index position,
                                              int tap, int image) {
  const Axis<Index>& axis = axis_number == 0 ? p.rows : p.columns;
  const PaddedAxis<Index>& padded = p.padded[axis_number];
  const Index reach = static_cast<Index>(tap) * axis.dilation;
  if (!axis.transposed) return padded_source(padded, position + reach);
  const Index place = padded_image(padded, position, image);
  if (place < reach) return -1;
  Unsigned<Index> remainder = place - reach;
  const Index input = p.strides[axis_number].split(remainder);
  return remainder == 0 && input < axis.inputs ? input : -1;
}

// How many images dgrad visits of a thread's pixels: up to the last that one of them has. Forward it is one.
template <typename Index, int kPixels>
__device__ __forceinline__ int images_of(const DirectConvParameters<Index>& p, int axis,
                                         const Index (&place)[kPixels]) {
  int images = 1;
  if (!p.rows.transposed) return images;
  for (int image = 1; image < p.padded[axis].images; ++image) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      if (padded_image(p.padded[axis], place[i], image) >= 0) images = image + 1;
    }
  }
  return images;
}

// The inputs of a thread's pixels at a tap, in their image-th way. False where none of them adds anything.
template <typename T, typename Index, int kPixels>
__device__ __forceinline__ bool find_inputs(const DirectConvParameters<Index>& p, const Index (&row)[kPixels],
                                            const Index (&column)[kPixels], int tap_row, int tap_column, int row_image,
                                            int column_image, const Unsigned<Index> (&place)[kPixels],
                                            Index first_channel, const T* (&source)[kPixels],
                                            bool (&is_valid)[kPixels]) {
  bool is_any = !p.rows.transposed;
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const Index r = mapped_input(p, 0, row[i], tap_row, row_image);
    const Index c = mapped_input(p, 1, column[i], tap_column, column_image);
    is_valid[i] = r >= 0 && c >= 0;
    is_any = is_any || is_valid[i];
    const Unsigned<Index> offset = place[i] + static_cast<Unsigned<Index>>(first_channel) * p.input_strides.channel +
                                   static_cast<Unsigned<Index>>(r) * p.input_strides.row +
                                   static_cast<Unsigned<Index>>(c) * p.input_strides.column;
    source[i] = static_cast<const T*>(p.input) + static_cast<Index>(is_valid[i] ? offset : 0);
  }
  return is_any;
}

}  // namespace fastconv
