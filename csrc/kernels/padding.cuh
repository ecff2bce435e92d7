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
  PaddingMode mode;
  Index size;  // without padding
  Index low, high;
  int images;  // the most positions of the padded input at which one element stands

  static PaddedAxis of(const ConvProblem& problem, int axis) {
    PaddedAxis padded;
    padded.mode = problem.padding_mode;
    padded.size = static_cast<Index>(problem.x.sizes[2 + axis]);
    padded.low = problem.padding[2 * axis];
    padded.high = problem.padding[2 * axis + 1];
    padded.images = 1;
    if (padded.low == 0 && padded.high == 0) return padded;
    if (padded.mode == PaddingMode::replicate)
      padded.images += problem.padding[2 * axis] + problem.padding[2 * axis + 1];
    if (padded.mode == PaddingMode::reflect || padded.mode == PaddingMode::circular) padded.images += 2;
    return padded;
  }
};

// Where `position`, from -low to size + high - 1, comes from; -1 where it is the constant.
template <typename Index>
FASTCONV_HOST_DEVICE inline Index padded_source(const PaddedAxis<Index>& axis, Index position) {
  if (is_inside(position, axis.size)) return position;
  const Index last = axis.size - 1;
  switch (axis.mode) {
    case PaddingMode::reflect:
      return position < 0 ? -position : last - (position - last);
    case PaddingMode::replicate:
      return position < 0 ? 0 : last;
    case PaddingMode::circular:
      return position < 0 ? position + axis.size : position - axis.size;
    default:
      return -1;
  }
}

// The image-th place in the padded input, counted from its edge, that padded_source takes to `position`; -1 where the
// element has no such image. Image 0 is the element itself.
template <typename Index>
FASTCONV_HOST_DEVICE inline Index padded_image(const PaddedAxis<Index>& axis, Index position, int image) {
  if (image == 0) return position + axis.low;
  const Index from_end = axis.size - 1 - position;
  switch (axis.mode) {
    case PaddingMode::reflect:
      if (image == 1) return position >= 1 && position <= axis.low ? axis.low - position : -1;
      return from_end >= 1 && from_end <= axis.high ? axis.low + (axis.size - 1) + from_end : -1;
    case PaddingMode::replicate:
      if (image <= axis.low) return position == 0 ? axis.low - image : -1;
      return from_end == 0 ? axis.low + (axis.size - 1) + (image - axis.low) : -1;
    case PaddingMode::circular:
      if (image == 1) return from_end < axis.low ? axis.low - 1 - from_end : -1;
      return position < axis.high ? axis.low + axis.size + position : -1;
    default:
      return -1;
  }
}

}  // namespace fastconv
