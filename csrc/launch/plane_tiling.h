// How dense NCHW tensors are cut into pieces for the blocks of pooling kernels: several planes, or a band of one's
// rows.
#pragma once

#include <cstdint>
#include <string>

#include "launch/max_pool_moving.h"

namespace fastconv {

// Bytes of shared memory that a block may take: more are better until too few blocks share a multiprocessor.
const NumberedConfigs& plane_tile_budgets();

// Of a tile's pieces of x, y and the offsets, and of what it keeps for itself. overlaid: what of these takes the place
// of others in shared memory.
struct PlaneTileBytes {
  int64_t x, y, offsets, kept = 0, overlaid = 0;

  int64_t moved() const { return x + y + offsets; }
  int64_t shared() const {
    return segment_room(x) + segment_room(y) + segment_room(offsets) + segment_room(kept) - overlaid;
  }
  // What a piece needs, wherever it begins; the twin of kernels/segment.cuh's.
  static int64_t segment_room(int64_t bytes) { return bytes == 0 ? 0 : (bytes + 30) / 16 * 16; }
};

// What bands are made of: the rows of a plane and the columns that threads have in each; what one row, and one plane,
// adds to where the pieces begin that are written; how many rows a thread has at a time, and how many it could have had
// in the time that it takes to begin a strip.
struct PlaneUnits {
  int64_t rows, columns, row_bytes, plane_bytes, rows_at_once = 1;
  double begin = 0.5;
};

struct PlaneTiling {
  int64_t planes, planes_per_tile, band, bands, strip, strips;
  PlaneUnits units;
  PlaneTileBytes bytes;     // of the largest tile
  PlaneTileBytes smallest;  // of one row of one plane
  int64_t moved_bytes;      // by all tiles

  // bytes_of(planes, rows): of so many planes, each with so many of its rows; all of them where planes > 1.
  template <typename BytesOf>
  PlaneTiling(const PoolProblem& problem, const PlaneUnits& units, int64_t budget, const BytesOf& bytes_of)
      : planes(problem.x.sizes[0] * problem.x.sizes[1]), planes_per_tile(1), units(units), smallest(bytes_of(1, 1)) {
    const int64_t two_planes = bytes_of(2, units.rows).shared();
    if (two_planes <= budget) {
      choose_planes(budget / (two_planes / 2), problem.target.multiprocessors);
    } else {
      int64_t most = 1;
      while (most < units.rows && bytes_of(1, most + 1).shared() <= budget) ++most;
      choose_band(most);
    }
    bytes = bytes_of(planes_per_tile, band);
    const int64_t whole = planes / planes_per_tile, rest = planes % planes_per_tile,
                  last = units.rows - (bands - 1) * band;
    moved_bytes = whole * ((bands - 1) * bytes.moved() + bytes_of(planes_per_tile, last).moved());
    if (rest > 0) moved_bytes += bytes_of(rest, units.rows).moved();
    choose_strip();
  }

  int64_t tiles() const { return (planes + planes_per_tile - 1) / planes_per_tile * bands; }

  // Under the names of kernels/plane_tile.cuh, with the strip that a thread walks down.
  template <typename Parameters>
  void give_to(Parameters& parameters) const {
    const auto divider = [](int64_t divisor) { return FastDivider<uint32_t>(static_cast<uint32_t>(divisor)); };
    parameters.planes = planes;
    parameters.planes_per_tile = static_cast<int>(planes_per_tile);
    parameters.band = static_cast<int>(band);
    parameters.strip = static_cast<int>(strip);
    parameters.bands = divider(bands);
    parameters.strips = divider(strips);
    parameters.columns = divider(units.columns);
  }

  void tell(Description& description) const {
    description.shared_bytes = bytes.shared();
    description.choices = {{"planes_per_tile", planes_per_tile}, {"band", band}, {"strip", strip}};
  }

 private:
  void choose_planes(int64_t fitting, int64_t multiprocessors);
  void choose_band(int64_t most);
  void choose_strip();
};

// Why a tensor is not dense NCHW; empty where all are.
std::string reason_against_dense_planes(const PoolProblem& problem);

// Why the tiles do not fit a block or the grid; empty where they do.
std::string reason_against_tiles(const PlaneTiling& tiling, const std::string& config);

}  // namespace fastconv
