// Max unpooling, as problem.h has the other ops.
#pragma once

#include "common/problem.h"

namespace fastconv {

enum class UnpoolPass { forward, add, gather };

// forward: x -> y, zeros but for x at the flat positions that the indices name in H * W; the last of equal positions
// stands. add: the same with their sum. gather: y -> x, what is at those positions.
struct UnpoolProblem {
  UnpoolPass pass = UnpoolPass::forward;
  DataType dtype = DataType::float32;
  Operand x;        // [N, C, P, Q]
  Operand indices;  // [N, C, P, Q], int64
  Operand y;        // [N, C, H, W]
  int index_bits = 32;
  Target target;

  void validate() const;
  int64_t flops() const;
  int64_t compulsory_bytes() const;
};

}  // namespace fastconv
