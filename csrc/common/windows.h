// How many rows or columns of an image lie under a window, and so are read. The twin of fastconv/windows.py.
#pragma once

#include "common/problem.h"

namespace fastconv {

// Windows along one dimension: number p begins at p * stride - low and has `taps` positions, `dilation` apart.
struct Windows {
  int64_t size;  // of the image
  int64_t count;
  int64_t taps;
  int64_t stride;
  int64_t dilation;
  int64_t low;       // padding before the image
  int64_t high = 0;  // and after it
  PaddingMode padding_mode = PaddingMode::zeros;

  // Positions of the image that some window reads: all of them, unless a stride or a dilation passes some over.
  int64_t reached() const;

 private:
  int64_t reached_directly() const;
  bool is_under_a_window(int64_t position) const;
  // Where a position of the padding comes from.
  int64_t source(int64_t position) const;
};

}  // namespace fastconv
