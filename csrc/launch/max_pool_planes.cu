#include <algorithm>

#include "launch/max_pool_windows.h"
#include "launch/plane_tiling.h"

namespace fastconv {
namespace {

// Output rows of a plane, or pairs of input rows: what bands are made of.
int64_t rows_of(const PoolProblem& problem) {
  return is_backward(problem) ? ceil_div(problem.x.sizes[2], 2) : problem.y.sizes[2];
}

// Of so many planes, each with so many of its rows; all of them where it has no neighbours in the plane.
PlaneTileBytes bytes_of_tile(const PoolProblem& problem, int64_t planes, int64_t rows) {
  const int64_t size = size_of(problem.dtype), shared_row = problem.kernel[0] == 3 ? 1 : 0;
  const int64_t input_rows = std::min(problem.x.sizes[2], 2 * rows + (is_backward(problem) ? 0 : shared_row));
  const int64_t output_rows = std::min(problem.y.sizes[2], rows + (is_backward(problem) ? shared_row : 0));
  const bool is_whole = planes > 1;
  const int64_t inputs = planes * (is_whole ? problem.x.sizes[2] : input_rows) * problem.x.sizes[3];
  const int64_t outputs = planes * (is_whole ? problem.y.sizes[2] : output_rows) * problem.y.sizes[3];
  return {inputs * size, outputs * size, outputs};
}

PlaneTiling tiling_of(const PoolProblem& problem, int64_t budget) {
  const bool backward = is_backward(problem);
  const int64_t size = size_of(problem.dtype);
  // Offsets, one byte an element, are the hardest to align.
  const int64_t row_bytes = backward ? 2 * problem.x.sizes[3] * size : problem.y.sizes[3];
  const int64_t plane_bytes =
      backward ? problem.x.sizes[2] * problem.x.sizes[3] * size : problem.y.sizes[2] * problem.y.sizes[3];
  const int64_t columns = backward ? ceil_div(problem.x.sizes[3], 2) : problem.y.sizes[3];
  return PlaneTiling(problem, {rows_of(problem), columns, row_bytes, plane_bytes}, budget,
                     [&](int64_t planes, int64_t rows) { return bytes_of_tile(problem, planes, rows); });
}

std::vector<std::string> configs(const PoolProblem&) {
  return plane_tile_budgets().names();
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  const std::string reason = reason_against_windows(problem);
  if (!reason.empty()) return reason;
  const std::string layout = reason_against_dense_planes(problem);
  if (!layout.empty()) return layout;
  return reason_against_tiles(tiling_of(problem, plane_tile_budgets()[config]), config);
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const PlaneTiling tiling = tiling_of(problem, plane_tile_budgets()[config]);
  const PlaneTileBytes& bytes = tiling.bytes;
  const bool backward = is_backward(problem);

  PlanePoolParameters prototype{};
  tiling.give_to(prototype);
  prototype.height = static_cast<int>(problem.x.sizes[2]);
  prototype.width = static_cast<int>(problem.x.sizes[3]);
  prototype.output_height = static_cast<int>(problem.y.sizes[2]);
  prototype.output_width = static_cast<int>(problem.y.sizes[3]);
  prototype.output_at = static_cast<int>(PlaneTileBytes::segment_room(backward ? bytes.y : bytes.x));
  prototype.offsets_at =
      prototype.output_at + static_cast<int>(PlaneTileBytes::segment_room(backward ? bytes.x : bytes.y));

  Description description =
      describe_moving(problem, tiling.tiles(), kPlaneThreads, static_cast<double>(tiling.moved_bytes));
  tiling.tell(description);

  // Of ceil_mode, the last window may begin in the last column.
  const bool has_pairs = problem.x.sizes[3] % 2 == 0 && 2 * (problem.y.sizes[3] - 1) < problem.x.sizes[3];
  const PlanePoolKernel kernel = with_small_type(problem.dtype, [&](auto tag) {
    return plane_pool_kernel_of<typename decltype(tag)::type>(problem.pass, problem.kernel[0], has_pairs);
  });
  return prepare_pool(problem, backward ? "max_pool_planes_backward" : "max_pool_planes_forward", description, kernel,
                      prototype);
}

}  // namespace

const KernelFamily<PoolProblem> max_pool_planes_forward{
    "max_pool_planes_forward", "NCHW, 2x2 s2 or 3x3 s2 p1: planes in pieces through shared memory, 16 bytes at a time",
    configs, can_implement, prepare};

const KernelFamily<PoolProblem> max_pool_planes_backward{
    "max_pool_planes_backward", "NCHW, 2x2 s2 or 3x3 s2 p1: gathered in shared memory, moved 16 bytes at a time",
    configs, can_implement, prepare};

}  // namespace fastconv
