// Walking over pixels (n, row, column) with a fixed step and no division.
#pragma once

#include "common/fast_division.h"
#include "kernels/index.cuh"

namespace fastconv {

template <typename Index>
struct Pixel {
  Index n, row, column;
};

template <typename Index>
FASTCONV_HOST_DEVICE inline Pixel<Index> pixel_at(Unsigned<Index> position, const DividerOf<Index>& rows,
                                                  const DividerOf<Index>& columns) {
  Unsigned<Index> column = position;
  Unsigned<Index> row = columns.split(column);
  Unsigned<Index> n = rows.split(row);
  return {static_cast<Index>(n), static_cast<Index>(row), static_cast<Index>(column)};
}

// pixel += step, where step is itself a pixel: smaller than (rows, columns) in its last two digits.
template <typename Index>
FASTCONV_HOST_DEVICE inline void advance(Pixel<Index>& pixel, const Pixel<Index>& step, Index rows, Index columns) {
  pixel.column += step.column;
  Index carry = pixel.column >= columns;
  pixel.column -= carry ? columns : 0;
  pixel.row += step.row + carry;
  carry = pixel.row >= rows;
  pixel.row -= carry ? rows : 0;
  pixel.n += step.n + carry;
}

}  // namespace fastconv
