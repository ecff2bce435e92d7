// The host's side of kernels/staged_conv: stem_fprop, grouped_fprop and grouped_dgrad, for sm_80 and later.
#pragma once

#include <vector>

#include "kernels/mma_conv/shape.cuh"
#include "kernels/staged_conv/parameters.h"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> stem_fprop;
extern const KernelFamily<ConvProblem> grouped_fprop;
extern const KernelFamily<ConvProblem> grouped_dgrad;

namespace staged {

// A compiled kernel: a unit's columns, and the units that are multiplied and stored together.
struct Kernel {
  bool by_words;
  int unit_columns, units;
  void (*function)(Parameters);
};

template <class Element, mma::Precision precision>
const std::vector<Kernel>& kernels();

}  // namespace staged
}  // namespace fastconv
