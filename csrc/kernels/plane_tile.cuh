// Pieces of dense NCHW tensors: rows of whole planes follow each other without a gap, so several planes, or a band of
// one plane's rows, are one contiguous piece of memory, whatever the width of a row. A block has a tile of such planes
// or rows.
//
// Parameters of a kernel have, under these names, `planes` (N * C, int64_t), `planes_per_tile` (1 where a plane has
// several bands), `band` (rows of a tile), and `bands`, `strips` and `columns`, dividers by the bands of a plane, the
// strips of a tile's plane and the columns that threads have in a row.
#pragma once

#include "common/fast_division.h"
#include "kernels/segment.cuh"

namespace fastconv {

constexpr int kPlaneThreads = 128;

struct PlaneTile {
  int64_t first_plane;
  int planes, first_row, rows;  // output rows, or pairs of input rows
};

template <typename Parameters>
__device__ inline PlaneTile plane_tile(const Parameters& p, int all_rows) {
  uint32_t band = blockIdx.x;
  const uint32_t group = p.bands.split(band);
  PlaneTile tile;
  tile.first_plane = static_cast<int64_t>(group) * p.planes_per_tile;
  tile.planes = static_cast<int>(min(static_cast<int64_t>(p.planes_per_tile), p.planes - tile.first_plane));
  tile.first_row = static_cast<int>(band) * p.band;
  tile.rows = min(p.band, all_rows - tile.first_row);
  return tile;
}

// Rows [first, end) of each of the tile's planes as one piece. Where there are several planes, all rows are in it.
struct PlanePiece {
  int64_t begin;  // in elements of the tensor
  int lines, count, first_row, rows_per_plane;

  __device__ PlanePiece(const PlaneTile& tile, int first, int end, int rows, int columns)
      : begin((tile.first_plane * rows + first) * columns),
        lines((tile.planes - 1) * rows + end - first),
        count(lines * columns),
        first_row(first),
        rows_per_plane(rows) {}

  // Elements from the piece's first to a row's.
  __device__ int row(int plane, int row, int columns) const {
    return (plane * rows_per_plane + row - first_row) * columns;
  }
};

// The thread's next strip of the tile: calls body(plane, first row, rows, column).
template <typename Parameters, typename Body>
__device__ __forceinline__ void for_each_strip(const Parameters& p, const PlaneTile& tile, const Body& body) {
  const int items = tile.planes * static_cast<int>(p.strips.divisor() * p.columns.divisor());
#pragma unroll 1
  for (int item = threadIdx.x; item < items; item += kPlaneThreads) {
    uint32_t column = item;
    uint32_t strip = p.columns.split(column);
    const uint32_t plane = p.strips.split(strip);
    const int first = static_cast<int>(strip) * p.strip;
    const int rows = min(p.strip, tile.rows - first);  // a tile may be lower than the others
    if (rows > 0) body(static_cast<int>(plane), tile.first_row + first, rows, static_cast<int>(column));
  }
}

}  // namespace fastconv
