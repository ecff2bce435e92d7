// Arithmetic and type dispatch that launchers share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "common/numeric.h"
#include "common/problem.h"

namespace fastconv {

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// The least n with 2^n >= value.
inline int ceil_log2(int64_t value) {
  int n = 0;
  while ((int64_t{1} << n) < value) ++n;
  return n;
}

// True where the channel is the innermost dimension, so that neighbouring threads should have neighbouring channels.
inline bool channels_are_innermost(const Operand& operand) {
  bool column_is_innermost = operand.strides[3] == 1 && operand.sizes[3] > 1;
  return operand.strides[1] == 1 && operand.sizes[1] > 1 && !column_is_innermost;
}

// All grids have one dimension, which holds this many blocks.
constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max();

inline std::string reason_for_blocks(int64_t blocks) {
  if (blocks <= kMostBlocks) return "";
  return "needs " + std::to_string(blocks) + " blocks, more than a grid holds (" + std::to_string(kMostBlocks) + ")";
}

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls function(TypeTag<storage type>{}) for all types but float64, for kernels that do not take it.
template <typename Function>
auto with_small_type(DataType dtype, const Function& function) {
  switch (dtype) {
    case DataType::float32:
      return function(TypeTag<float>{});
    case DataType::float16:
      return function(TypeTag<Half>{});
    default:
      return function(TypeTag<BFloat16>{});
  }
}

// Calls function(TypeTag<storage type>{}).
template <typename Function>
auto with_type(DataType dtype, const Function& function) {
  return dtype == DataType::float64 ? function(TypeTag<double>{}) : with_small_type(dtype, function);
}

// Calls function(TypeTag<int32_t or int64_t>{}).
template <typename Function>
auto with_index(int index_bits, const Function& function) {
  return index_bits == 32 ? function(TypeTag<int32_t>{}) : function(TypeTag<int64_t>{});
}

}  // namespace fastconv
