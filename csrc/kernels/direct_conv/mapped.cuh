// Padding other than zeros is an index map (kernels/padding.cuh). Forward, a tap beyond the border reads what the map
// says. In dgrad an element also takes what reached its images in the padded input; those have other taps than the
// element's own phase, so there every tap is tried and phases are not used.
#pragma once

#include "kernels/direct_conv/parameters.cuh"

namespace fastconv {

// replicate: the input that an element of a border has at a tap in its image-th way, from 1 on; -1 for none. Images are
// y's first places, which may lie in the padding below, and then its last ones. They are not places of the padding,
// which may be longer than y by any factor.
template <typename Index>
__device__ __forceinline__ Index repeated_input(const DirectConvParameters<Index>& p, int axis_number, Index position,
                                                Index reach, Index image) {
  const PaddedAxis<Index>& padded = p.padded[axis_number];
  const Index first = p.first_padded[axis_number];
  const bool is_below = image <= first;
  if (position != (is_below ? padded.below : padded.above)) return -1;
  const Index inputs = axis_number == 0 ? p.rows.inputs : p.columns.inputs;
  const Index input = is_below ? image - 1 : inputs - (image - first);
  const Index place = input * static_cast<Index>(p.strides[axis_number].divisor()) + reach;
  return (is_below ? place < padded.low : place - padded.low >= padded.size) ? input : -1;
}

// Mapped padding: where the input of output `position` at a tap lies on this axis, in its image-th way; -1 for none.
// Forward there is one way. position: forward its tap 0 in x, in dgrad the element of dx.
template <typename Index>
__device__ __forceinline__ Index mapped_input(const DirectConvParameters<Index>& p, int axis_number, Index position,
                                              int tap, Index image) {
  const Axis<Index>& axis = axis_number == 0 ? p.rows : p.columns;
  const PaddedAxis<Index>& padded = p.padded[axis_number];
  const Index reach = static_cast<Index>(tap) * axis.dilation;
  if (!axis.transposed) return padded_source(padded, position + reach);
  if (padded.slope == 0 && image > 0) return repeated_input(p, axis_number, position, reach, image);
  const Index place = padded_image(padded, position, static_cast<int>(image));
  if (place < reach) return -1;
  Unsigned<Index> remainder = place - reach;
  const Index input = p.strides[axis_number].split(remainder);
  return remainder == 0 && input < axis.inputs ? input : -1;
}

// How many images dgrad visits of a thread's pixels: up to the last that one of them has. Forward it is one.
template <typename Index, int kPixels>
__device__ __forceinline__ Index images_of(const DirectConvParameters<Index>& p, int axis,
                                           const Index (&place)[kPixels]) {
  Index images = 1;
  if (!p.rows.transposed) return images;
  const PaddedAxis<Index>& padded = p.padded[axis];
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    if (padded.slope == 0) {
      const Index first = p.first_padded[axis], last = p.last_padded[axis];
      if (place[i] == padded.below) images = max(images, 1 + first);
      if (place[i] == padded.above && last > 0) images = max(images, 1 + first + last);
    } else {
      for (int image = 1; image < padded.images; ++image) {
        if (padded_image(padded, place[i], image) >= 0) images = max(images, static_cast<Index>(image + 1));
      }
    }
  }
  return images;
}

// The inputs of a thread's pixels at a tap, in their image-th way. False where none of them adds anything.
template <typename T, typename Index, int kPixels>
__device__ __forceinline__ bool find_inputs(const DirectConvParameters<Index>& p, const Index (&row)[kPixels],
                                            const Index (&column)[kPixels], int tap_row, int tap_column,
                                            Index row_image, Index column_image,
                                            const Unsigned<Index> (&place)[kPixels], Index first_channel,
                                            const T* (&source)[kPixels], bool (&is_valid)[kPixels]) {
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
