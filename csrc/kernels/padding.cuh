// Padding as index maps, so that no padded copy is ever made. A forward pass asks where a position of the padded input
// comes from; the gradient by the input asks the reverse, at which positions of the padded input an element stands: at
// its own, and where it is mirrored, repeated or wrapped around.
#pragma once

#include "common/problem.h"
#include "kernels/index.cuh"

namespace fastconv {

// One of the two spatial dimensions of the padded input. reflect: low, high < size; circular: low, high <= size.
template <typename Index>
struct PaddedAxis {
  Index size;  // without padding
  Index low, high;
  int images;  // the most positions of the padded input at which one element stands
  // Beyond the borders the place that is read is a line in the position: below + slope * position, or above + ....
  // Constants have no place, and their line is -1.
  Index below, above;
  int slope;  // reflect: -1; circular: 1; else 0

  static PaddedAxis of(const ConvProblem& problem, int axis) {
    PaddedAxis padded;
    padded.size = static_cast<Index>(problem.x.sizes[2 + axis]);
    padded.low = problem.padding[2 * axis];
    padded.high = problem.padding[2 * axis + 1];
    padded.below = padded.above = -1;
    padded.slope = 0;
    padded.images = 1;
    const bool is_padded = padded.low > 0 || padded.high > 0;
    const Index last = padded.size - 1;
    switch (problem.padding_mode) {
      case PaddingMode::reflect:
        return padded.with_line(0, 2 * last, -1, is_padded ? 2 : 0);
      case PaddingMode::replicate:
        return padded.with_line(0, last, 0, padded.low + padded.high);
      case PaddingMode::circular:
        return padded.with_line(padded.size, -padded.size, 1, is_padded ? 2 : 0);
      default:
        return padded;
    }
  }

 private:
  PaddedAxis with_line(Index line_below, Index line_above, int line_slope, Index more_images) const {
    PaddedAxis padded = *this;
    padded.below = line_below;
    padded.above = line_above;
    padded.slope = line_slope;
    padded.images += static_cast<int>(more_images);
    return padded;
  }
};

// Where `position`, from -low to size + high - 1, comes from; -1 where it is the constant.
template <typename Index>
FASTCONV_HOST_DEVICE inline Index padded_source(const PaddedAxis<Index>& axis, Index position) {
  if (is_inside(position, axis.size)) return position;
  return (position < 0 ? axis.below : axis.above) + axis.slope * position;
}

// The image-th place in the padded input, counted from its edge, that padded_source takes to `position`; -1 where the
// element has no such image. Image 0 is the element itself; then come those below the border and those above it, one
// each, or in replicate one for each place of the padding.
template <typename Index>
FASTCONV_HOST_DEVICE inline Index padded_image(const PaddedAxis<Index>& axis, Index position, int image) {
  if (image == 0) return position + axis.low;
  const bool is_below = axis.slope == 0 ? image <= axis.low : image == 1;
  const Index line = is_below ? axis.below : axis.above;
  if (axis.slope == 0) {
    const Index place = is_below ? axis.low - image : axis.size - 1 + image;
    return position == line ? place : -1;
  }
  const Index place = axis.low + axis.slope * (position - line), after = axis.low + axis.size;
  const bool exists = is_below ? is_inside(place, axis.low) : is_inside(place - after, axis.high);
  return exists ? place : -1;
}

}  // namespace fastconv
