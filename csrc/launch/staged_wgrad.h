// The host's side of kernels/staged_conv/staged_wgrad: stem_wgrad and grouped_wgrad, for sm_80 and later.
#pragma once

#include <vector>

#include "kernels/staged_conv/staged_wgrad.cuh"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> stem_wgrad;
extern const KernelFamily<ConvProblem> grouped_wgrad;

namespace staged {

// A compiled kernel. Stems: `terms` a block for its filters. Groups: `taps`, and `channels` for each 16 filters.
struct WgradKernel {
  bool by_words;
  int filters, terms, taps, channels;
  void (*function)(WgradParameters);
};

template <class Element, mma::Precision precision>
const std::vector<WgradKernel>& wgrad_kernels();

template <class Element, mma::Precision precision>
const std::vector<WgradKernel>& compiled_wgrad_kernels() {
  // A warp of a stem has 64 filters and 2 or 6 tiles of 8 terms; in split TF32, which holds operands twice, 32 filters.
  constexpr int kRows = precision == mma::Precision::split_tf32 ? 2 : 4;
  static const std::vector<WgradKernel> all{
      {true, 16 * kRows, 64, 0, 0, staged_wgrad<WgradUnit<Element, precision, kRows, 2, true>, 1>},
      {true, 16 * kRows, 192, 0, 0, staged_wgrad<WgradUnit<Element, precision, kRows, 6, true>, 1>},
      {false, 64, 0, 1, 32, staged_wgrad<WgradUnit<Element, precision, 1, 4, false>, 1>},
      {false, 64, 0, 9, 16, staged_wgrad<WgradUnit<Element, precision, 1, 2, false>, 9>},
      {false, 64, 0, 9, 32, staged_wgrad<WgradUnit<Element, precision, 1, 4, false>, 9>},
  };
  return all;
}

}  // namespace staged
}  // namespace fastconv
