#include "launch/max_pool_bands.h"

#include <algorithm>

#include "launch/max_pool_windows.h"
#include "launch/plane_tiling.h"

namespace fastconv {
namespace {

// Positions under a window, those between its taps included.
int64_t span_of(const PoolProblem& problem, int axis) {
  return int64_t{problem.kernel[axis] - 1} * problem.dilation[axis] + 1;
}

// Rows of x under so many rows of windows.
int64_t reached_rows(const PoolProblem& problem, int64_t rows) {
  return std::min(problem.x.sizes[2], (rows - 1) * problem.stride[0] + span_of(problem, 0));
}

// Of so many planes, each with so many rows of windows; all of them where it has no neighbours in the plane.
PlaneTileBytes forward_bytes(const PoolProblem& problem, int64_t planes, int64_t rows) {
  const int64_t size = size_of(problem.dtype), columns = problem.y.sizes[3];
  const int64_t lines = planes * (planes > 1 ? problem.x.sizes[2] : reached_rows(problem, rows));
  const int64_t outputs = planes * rows * columns;
  // Of every line the winners of its part of each window, and their places.
  const int64_t kept_columns = has_band_blocks(problem) ? ceil_div(columns, kPoolBlock) * kPoolBlock : columns;
  const int64_t kept = has_band_walk(problem) ? 0 : lines * kept_columns * (size + 1);
  return {lines * problem.x.sizes[3] * size, outputs * size, outputs, kept};
}

PlaneTiling forward_tiling(const PoolProblem& problem, int64_t budget) {
  const int64_t rows = problem.y.sizes[2], columns = problem.y.sizes[3];
  const int64_t walked = has_band_walk(problem) ? ceil_div(columns, band_walk_columns(problem)) : columns;
  // Offsets, one byte an element, are the hardest to align.
  const int64_t at_once = has_band_walk(problem) && problem.stride[0] == 1 ? 2 : 1;
  const double begin = 0.5 + 0.5 * (problem.kernel[0] - problem.stride[0]);
  const PlaneUnits units{rows, walked, columns, rows * columns, at_once, begin};
  PlaneTiling tiling(problem, units, budget,
                     [&](int64_t of_planes, int64_t of_rows) { return forward_bytes(problem, of_planes, of_rows); });
  if (!has_band_walk(problem)) {
    tiling.strip = std::min<int64_t>(kBandRun, tiling.band);
    tiling.strips = ceil_div(tiling.band, tiling.strip);
  }
  return tiling;
}

// Windows over so many neighbouring positions, at most.
int64_t windows_over(const PoolProblem& problem, int axis, int64_t positions) {
  return std::min(problem.y.sizes[2 + axis], (positions + span_of(problem, axis) - 2) / problem.stride[axis] + 1);
}

// Of so many planes, each with so many rows of dx.
PlaneTileBytes backward_bytes(const PoolProblem& problem, int64_t planes, int64_t rows) {
  const int64_t size = size_of(problem.dtype), sum_size = std::max<int64_t>(size, 4);
  const int64_t inputs = planes * rows * problem.x.sizes[3];
  const int64_t window_rows = planes > 1 ? problem.y.sizes[2] : windows_over(problem, 0, rows);
  const int64_t windows = planes * window_rows * problem.y.sizes[3];
  PlaneTileBytes bytes{inputs * size, windows * size, windows, (kPlaneThreads + inputs + 16) * sum_size};
  // The sums are dx, or are converted to where dy and the offsets were.
  const int64_t read = PlaneTileBytes::segment_room(bytes.y) + PlaneTileBytes::segment_room(bytes.offsets);
  const int64_t room = PlaneTileBytes::segment_room(bytes.x);
  bytes.overlaid = sum_size > size ? std::min(read, room) : room;
  return bytes;
}

PlaneTiling backward_tiling(const PoolProblem& problem, int64_t budget) {
  const int64_t rows = problem.x.sizes[2], columns = problem.x.sizes[3], size = size_of(problem.dtype);
  const PlaneUnits units{rows, columns, columns * size, rows * columns * size};
  return PlaneTiling(problem, units, budget,
                     [&](int64_t of_planes, int64_t of_rows) { return backward_bytes(problem, of_planes, of_rows); });
}

// What a thread has of dx: wide and high patches look at few windows that are not theirs, small ones make more threads.
struct Patch {
  int64_t columns, rows;
  double instructions;  // of a tile's threads
};

Patch patch_of(const PoolProblem& problem, const PlaneTiling& tiling) {
  Patch best{};
  for (int64_t columns : {4, 8, 16}) {
    for (int64_t rows = 1; rows <= std::min<int64_t>(tiling.band, 32); ++rows) {
      const int64_t patches =
          tiling.planes_per_tile * ceil_div(tiling.band, rows) * ceil_div(problem.x.sizes[3], columns);
      const double window_rows = static_cast<double>(windows_over(problem, 0, rows));
      const double windows = window_rows * static_cast<double>(windows_over(problem, 1, columns));
      // Threads without a patch wait for the others.
      const double turns = static_cast<double>(ceil_div(patches, kPlaneThreads));
      const double instructions = turns * kPlaneThreads * (80 + 15 * window_rows + 21 * windows);
      if (best.columns == 0 || instructions < best.instructions) best = {columns, rows, instructions};
    }
  }
  return best;
}

PlaneTiling tiling_of(const PoolProblem& problem, int64_t budget) {
  return is_backward(problem) ? backward_tiling(problem, budget) : forward_tiling(problem, budget);
}

std::vector<std::string> configs(const PoolProblem&) {
  return plane_tile_budgets().names();
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  if (reason_against_windows(problem).empty()) return "max_pool_planes is made for this window and type";
  if (problem.offsets_type != OffsetType::uint8) return "offsets of int32: this kernel writes one byte";
  if (problem.x.count() == 0 || problem.y.count() == 0) return "an operand is empty";
  for (int axis = 0; axis < 2; ++axis) {
    // Where a window begins and ends is computed in 32 bits.
    const int64_t reach =
        (problem.y.sizes[2 + axis] - 1) * problem.stride[axis] + int64_t{problem.kernel[axis]} * problem.dilation[axis];
    if (problem.x.sizes[2 + axis] >= 1 << 29 || reach >= 1 << 29) {
      return "windows that reach 2^29 rows or columns or more";
    }
  }
  const std::string layout = reason_against_dense_planes(problem);
  if (!layout.empty()) return layout;
  return reason_against_tiles(tiling_of(problem, plane_tile_budgets()[config]), config);
}

PoolAxis<int32_t> axis_of(const PoolProblem& problem, int axis) {
  return {static_cast<int32_t>(problem.x.sizes[2 + axis]),
          static_cast<int32_t>(problem.y.sizes[2 + axis]),
          problem.kernel[axis],
          problem.stride[axis],
          problem.padding[axis],
          problem.dilation[axis],
          FastDivider<uint32_t>(static_cast<uint32_t>(problem.stride[axis])),
          FastDivider<uint32_t>(static_cast<uint32_t>(problem.dilation[axis]))};
}

// Of the shared memory of a multiprocessor, at least.
constexpr double kResidentBytes = 160 * 1024;
// Blocks of four warps that it takes to hide how long an instruction waits for the one before it.
constexpr double kHidingBlocks = 6;

// Instructions that the threads execute, as the machine code has them, roughly.
double forward_instructions(const PoolProblem& problem, const PlaneTiling& tiling) {
  const double outputs = static_cast<double>(problem.y.count()), strip = static_cast<double>(tiling.strip);
  if (has_band_walk(problem)) {
    // Of an output, and what begins a strip.
    const bool is_small = size_of(problem.dtype) == 2;
    const double each = problem.stride[0] == 2   ? 69
                        : problem.kernel[0] == 5 ? (is_small ? 46 : 58)
                                                 : (is_small ? 33 : 40);
    return outputs * (each + (15 * (problem.kernel[0] - problem.stride[0]) + 60) / strip);
  }
  const double lines =
      static_cast<double>(tiling.tiles() * tiling.bytes.kept) / static_cast<double>(size_of(problem.dtype) + 1);
  const double window_rows = problem.kernel[0], window_columns = problem.kernel[1];
  if (has_band_blocks(problem)) return lines * (21 + 2.8 * window_columns) + outputs * (34 + 3.6 * window_rows);
  return lines * (38 + 8 * window_columns) + outputs * (75 + 11 * window_rows);
}

// The parameters that both passes have, and how long the threads take.
Description prepare_bands(const PoolProblem& problem, const PlaneTiling& tiling, double instructions,
                          BandPoolParameters& prototype) {
  tiling.give_to(prototype);
  prototype.row_axis = axis_of(problem, 0);
  prototype.column_axis = axis_of(problem, 1);
  const double resident = kResidentBytes / static_cast<double>(tiling.bytes.shared());
  Description description =
      describe_moving(problem, tiling.tiles(), kPlaneThreads, static_cast<double>(tiling.moved_bytes),
                      instructions / std::min(1.0, resident / kHidingBlocks));
  tiling.tell(description);
  return description;
}

Prepared prepare_forward(const PoolProblem& problem, const std::string& config) {
  const PlaneTiling tiling = forward_tiling(problem, plane_tile_budgets()[config]);
  const PlaneTileBytes& bytes = tiling.bytes;
  BandPoolParameters prototype{};
  const Description description = prepare_bands(problem, tiling, forward_instructions(problem, tiling), prototype);
  prototype.column_blocks = FastDivider<uint32_t>(static_cast<uint32_t>(ceil_div(problem.y.sizes[3], kPoolBlock)));
  prototype.output_at = static_cast<int>(PlaneTileBytes::segment_room(bytes.x));
  prototype.offsets_at = prototype.output_at + static_cast<int>(PlaneTileBytes::segment_room(bytes.y));
  prototype.kept_at = prototype.offsets_at + static_cast<int>(PlaneTileBytes::segment_room(bytes.offsets));
  const int64_t size = size_of(problem.dtype);
  prototype.kept_places_at = prototype.kept_at + static_cast<int>(bytes.kept / (size + 1) * size);
  return prepare_pool(problem, "max_pool_bands_forward", description, band_pool_forward_kernel_of(problem), prototype);
}

Prepared prepare_backward(const PoolProblem& problem, const std::string& config) {
  PlaneTiling tiling = backward_tiling(problem, plane_tile_budgets()[config]);
  const Patch patch = patch_of(problem, tiling);
  tiling.units.columns = ceil_div(problem.x.sizes[3], patch.columns);
  tiling.strip = patch.rows;
  tiling.strips = ceil_div(tiling.band, patch.rows);
  const PlaneTileBytes& bytes = tiling.bytes;
  BandPoolParameters prototype{};
  Description description =
      prepare_bands(problem, tiling, patch.instructions * static_cast<double>(tiling.tiles()), prototype);
  description.choices.push_back({"patch_columns", patch.columns});
  prototype.patch_columns = static_cast<int>(patch.columns);
  prototype.place_multiplier = (1 << 16) / problem.kernel[1] + 1;
  prototype.offsets_at = static_cast<int>(PlaneTileBytes::segment_room(bytes.y));
  const int64_t read = prototype.offsets_at + PlaneTileBytes::segment_room(bytes.offsets);
  const bool is_converted = size_of(problem.dtype) < 4;
  prototype.kept_at = static_cast<int>(is_converted ? std::max(read, PlaneTileBytes::segment_room(bytes.x)) : read);
  prototype.output_at = is_converted ? 0 : prototype.kept_at + kPlaneThreads * size_of(problem.dtype);
  return prepare_pool(problem, "max_pool_bands_backward", description, band_pool_backward_kernel_of(problem),
                      prototype);
}

}  // namespace

const KernelFamily<PoolProblem> max_pool_bands_forward{
    "max_pool_bands_forward", "NCHW, any window: planes in pieces through shared memory, 16 bytes at a time", configs,
    can_implement, prepare_forward};

const KernelFamily<PoolProblem> max_pool_bands_backward{
    "max_pool_bands_backward",
    "NCHW, any window: added up in shared memory, each sum by one thread, 16 bytes at a time", configs, can_implement,
    prepare_backward};

}  // namespace fastconv
