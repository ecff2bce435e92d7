#include <algorithm>
#include <numeric>

#include "launch/max_pool_windows.h"

namespace fastconv {
namespace {

// Bytes of shared memory that a block may take: more are better until too few blocks share a multiprocessor.
const NumberedConfigs kBudgets{{"16k", 16384}, {"32k", 32768}, {"8k", 8192}, {"96k", 98304}};

constexpr int kLongestStrip = 16;

// Output rows of a plane, or pairs of input rows: what bands are made of.
int64_t rows_of(const PoolProblem& problem) {
  return is_backward(problem) ? ceil_div(problem.x.sizes[2], 2) : problem.y.sizes[2];
}

struct PieceBytes {
  int64_t x, y, offsets;

  int64_t total() const { return segment_room(x) + segment_room(y) + segment_room(offsets); }
  static int64_t segment_room(int64_t bytes) { return (bytes + 30) / 16 * 16; }
};

struct PlaneGeometry {
  int64_t planes, planes_per_tile, band, bands, strip, strips, columns;
  PieceBytes bytes;  // of the largest tile

  int64_t tiles() const { return ceil_div(planes, planes_per_tile) * bands; }
};

// Of so many planes, each with so many of its rows; all of them where it has no neighbours in the plane.
PieceBytes bytes_of_tile(const PoolProblem& problem, int64_t planes, int64_t rows) {
  const int64_t size = size_of(problem.dtype), shared_row = problem.kernel[0] == 3 ? 1 : 0;
  const int64_t input_rows = std::min(problem.x.sizes[2], 2 * rows + (is_backward(problem) ? 0 : shared_row));
  const int64_t output_rows = std::min(problem.y.sizes[2], rows + (is_backward(problem) ? shared_row : 0));
  const bool is_whole = planes > 1;
  const int64_t inputs = planes * (is_whole ? problem.x.sizes[2] : input_rows) * problem.x.sizes[3];
  const int64_t outputs = planes * (is_whole ? problem.y.sizes[2] : output_rows) * problem.y.sizes[3];
  return {inputs * size, outputs * size, outputs};
}

// The largest multiple up to `most` of a count whose pieces begin where 16-byte accesses do, or `most` where there is
// none.
int64_t aligned_count(int64_t most, int64_t bytes_each) {
  const int64_t multiple = 16 / std::gcd(int64_t{16}, bytes_each);
  return most < multiple ? most : most - most % multiple;
}

// Turns of the block's threads, by how long each takes: the rows of a strip, and half a one to begin it.
int64_t best_strip(int64_t planes, int64_t band, int64_t columns) {
  int64_t best = 1;
  double least = 0;
  for (int64_t strip = 1; strip <= std::min<int64_t>(band, kLongestStrip); ++strip) {
    const double cost = static_cast<double>(ceil_div(planes * ceil_div(band, strip) * columns, kPlaneThreads)) *
                        (static_cast<double>(strip) + 0.5);
    if (strip == 1 || cost < least) {
      best = strip;
      least = cost;
    }
  }
  return best;
}

PlaneGeometry geometry_of(const PoolProblem& problem, int64_t budget) {
  const int64_t rows = rows_of(problem), size = size_of(problem.dtype);
  PlaneGeometry result{};
  result.planes = problem.x.sizes[0] * problem.x.sizes[1];
  // What a unit adds to where the written pieces begin; offsets, one byte an element, are the hardest to align.
  const int64_t row_bytes = is_backward(problem) ? 2 * problem.x.sizes[3] * size : problem.y.sizes[3];
  const int64_t plane_bytes =
      is_backward(problem) ? problem.x.sizes[2] * problem.x.sizes[3] * size : problem.y.sizes[2] * problem.y.sizes[3];
  if (bytes_of_tile(problem, 2, rows).total() <= budget) {
    const int64_t fitting = budget / (bytes_of_tile(problem, 2, rows).total() / 2);
    const int64_t filling = ceil_div(result.planes, 2 * problem.target.multiprocessors);
    result.planes_per_tile = aligned_count(std::max<int64_t>(1, std::min(fitting, filling)), plane_bytes);
    result.band = rows;
  } else {
    result.planes_per_tile = 1;
    int64_t most = 1;
    while (most < rows && bytes_of_tile(problem, 1, most + 1).total() <= budget) ++most;
    const int64_t bands = ceil_div(rows, most), even = ceil_div(rows, bands);
    const int64_t multiple = 16 / std::gcd(int64_t{16}, row_bytes);
    const int64_t rounded = ceil_div(even, multiple) * multiple;
    result.band = bands == 1 ? rows : rounded <= most ? rounded : aligned_count(most, row_bytes);
  }
  result.bands = ceil_div(rows, result.band);
  result.columns = is_backward(problem) ? ceil_div(problem.x.sizes[3], 2) : problem.y.sizes[3];
  result.strip = best_strip(result.planes_per_tile, result.band, result.columns);
  result.strips = ceil_div(result.band, result.strip);
  result.bytes = bytes_of_tile(problem, result.planes_per_tile, result.band);
  return result;
}

// Whether planes follow each other without a gap, rows and columns in order.
bool is_dense(const Operand& operand) {
  int64_t expected = 1;
  for (int i = 3; i >= 0; --i) {
    if (operand.sizes[i] != 1 && operand.strides[i] != expected) return false;
    expected *= operand.sizes[i];
  }
  return true;
}

std::vector<std::string> configs(const PoolProblem&) {
  return kBudgets.names();
}

std::string can_implement(const PoolProblem& problem, const std::string& config) {
  const std::string reason = reason_against_windows(problem);
  if (!reason.empty()) return reason;
  for (const auto& [name, operand] :
       {std::pair<const char*, const Operand&>{"x", problem.x}, {"y", problem.y}, {"offsets", problem.offsets}}) {
    if (!is_dense(operand)) return std::string(name) + " is not dense NCHW, where whole planes are one piece";
  }
  const int64_t row = bytes_of_tile(problem, 1, 1).total();
  if (row > kBudgets[config]) {
    return "the rows of one row of windows take " + std::to_string(row) + " bytes of shared memory, more than " +
           config;
  }
  return reason_for_blocks(geometry_of(problem, kBudgets[config]).tiles());
}

Prepared prepare(const PoolProblem& problem, const std::string& config) {
  const PlaneGeometry geometry = geometry_of(problem, kBudgets[config]);
  const PieceBytes& bytes = geometry.bytes;
  const bool backward = is_backward(problem);

  PlanePoolParameters prototype{};
  prototype.planes = geometry.planes;
  prototype.height = static_cast<int>(problem.x.sizes[2]);
  prototype.width = static_cast<int>(problem.x.sizes[3]);
  prototype.output_height = static_cast<int>(problem.y.sizes[2]);
  prototype.output_width = static_cast<int>(problem.y.sizes[3]);
  prototype.planes_per_tile = static_cast<int>(geometry.planes_per_tile);
  prototype.band = static_cast<int>(geometry.band);
  prototype.strip = static_cast<int>(geometry.strip);
  prototype.bands = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.bands));
  prototype.strips = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.strips));
  prototype.columns = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.columns));
  prototype.output_at = static_cast<int>(PieceBytes::segment_room(backward ? bytes.y : bytes.x));
  prototype.offsets_at = prototype.output_at + static_cast<int>(PieceBytes::segment_room(backward ? bytes.x : bytes.y));

  const double moved = static_cast<double>(geometry.tiles()) * static_cast<double>(bytes.x + bytes.y + bytes.offsets);
  Description description = describe_moving(problem, geometry.tiles(), kPlaneThreads, moved);
  description.shared_bytes = bytes.total();
  description.choices = {
      {"planes_per_tile", geometry.planes_per_tile}, {"band", geometry.band}, {"strip", geometry.strip}};

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
