#include "launch/max_pool_windows.h"

namespace fastconv {
namespace {

std::string pair_of(const std::array<int, 2>& pair) {
  return std::to_string(pair[0]) + "x" + std::to_string(pair[1]);
}

bool is_window(const PoolProblem& problem, int window, int padding) {
  const std::array<int, 2> sizes{window, window}, strides{2, 2}, paddings{padding, padding};
  return problem.kernel == sizes && problem.stride == strides && problem.padding == paddings;
}

}  // namespace

std::string reason_against_windows(const PoolProblem& problem) {
  if (problem.dtype == DataType::float64) return "float64: this kernel is for float32, float16 and bfloat16";
  if (problem.dilation != std::array<int, 2>{1, 1}) {
    return "dilation " + pair_of(problem.dilation) + ": this kernel is for dilation 1";
  }
  if (!is_window(problem, 2, 0) && !is_window(problem, 3, 1)) {
    return "window " + pair_of(problem.kernel) + ", stride " + pair_of(problem.stride) + ", padding " +
           pair_of(problem.padding) + ": this kernel is for 2x2 with stride 2, and 3x3 with stride 2 and padding 1";
  }
  if (problem.offsets_type != OffsetType::uint8) return "offsets of int32: this kernel writes one byte";
  if (problem.x.count() == 0 || problem.y.count() == 0) return "an operand is empty";
  for (int axis = 2; axis < 4; ++axis) {
    if (problem.x.sizes[axis] >= int64_t{1} << 30) return "2^30 rows or columns or more";
  }
  return "";
}

}  // namespace fastconv
