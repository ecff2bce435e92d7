#include "launch/plane_tiling.h"

#include <algorithm>
#include <numeric>

#include "kernels/plane_tile.cuh"
#include "launch/tiling.h"

namespace fastconv {
namespace {

constexpr int kLongestStrip = 16;

// The largest multiple up to `most` of a count whose pieces begin where 16-byte accesses do, or `most` where there is
// none.
int64_t aligned_count(int64_t most, int64_t bytes_each) {
  const int64_t multiple = 16 / std::gcd(int64_t{16}, bytes_each);
  return most < multiple ? most : most - most % multiple;
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

}  // namespace

const NumberedConfigs& plane_tile_budgets() {
  static const NumberedConfigs budgets{{"16k", 16384}, {"32k", 32768}, {"8k", 8192}, {"96k", 98304}};
  return budgets;
}

void PlaneTiling::choose_planes(int64_t fitting, int64_t multiprocessors) {
  const int64_t filling = ceil_div(planes, 2 * multiprocessors);
  planes_per_tile = aligned_count(std::max<int64_t>(1, std::min(fitting, filling)), units.plane_bytes);
  band = units.rows;
  bands = 1;
}

void PlaneTiling::choose_band(int64_t most) {
  const int64_t even_bands = ceil_div(units.rows, most), even = ceil_div(units.rows, even_bands);
  const int64_t multiple = 16 / std::gcd(int64_t{16}, units.row_bytes);
  const int64_t rounded = ceil_div(even, multiple) * multiple;
  band = even_bands == 1 ? units.rows : rounded <= most ? rounded : aligned_count(most, units.row_bytes);
  bands = ceil_div(units.rows, band);
}

// Turns of the block's threads, by how long each takes.
void PlaneTiling::choose_strip() {
  strip = 1;
  double least = 0;
  for (int64_t rows = 1; rows <= std::min<int64_t>(band, kLongestStrip); ++rows) {
    const double turns =
        static_cast<double>(ceil_div(planes_per_tile * ceil_div(band, rows) * units.columns, kPlaneThreads));
    const double cost =
        turns * (static_cast<double>(ceil_div(rows, units.rows_at_once) * units.rows_at_once) + units.begin);
    if (rows == 1 || cost < least) {
      strip = rows;
      least = cost;
    }
  }
  strips = ceil_div(band, strip);
}

std::string reason_against_dense_planes(const PoolProblem& problem) {
  for (const auto& [name, operand] :
       {std::pair<const char*, const Operand&>{"x", problem.x}, {"y", problem.y}, {"offsets", problem.offsets}}) {
    if (!is_dense(operand)) return std::string(name) + " is not dense NCHW, where whole planes are one piece";
  }
  return "";
}

std::string reason_against_tiles(const PlaneTiling& tiling, const std::string& config) {
  const int64_t row = tiling.smallest.shared();
  if (row > plane_tile_budgets()[config]) {
    return "the rows of one row of windows take " + std::to_string(row) + " bytes of shared memory, more than " +
           config;
  }
  return reason_for_blocks(tiling.tiles());
}

}  // namespace fastconv
