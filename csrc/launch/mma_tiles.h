// The tile shapes of the tensor-core kernels, and what the host has to know of each.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "kernels/mma_conv/parameters.h"
#include "kernels/mma_conv/shape.cuh"

namespace fastconv::mma {

// Sizes in elements, but for the depth: a slice of the sum has 64 or 128 bytes a row in fprop and dgrad, and so many
// pixels in wgrad.
struct Tile {
  int rows, columns, depth, stages, warp_rows, warp_columns;

  constexpr int warps() const { return rows / warp_rows * (columns / warp_columns); }
  // "128x128x32_s4_w4"
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(columns) + "x" + std::to_string(depth) + "_s" +
           std::to_string(stages) + "_w" + std::to_string(warps());
  }
};

template <class Parameters>
struct Kernel {
  Tile tile;
  int shared_bytes;
  void (*function)(Parameters);
  int launch_bound;  // the function's own
};

// Of fprop, dgrad and transposed convolution: rows are pixels, columns filters.
constexpr Tile kGatherTiles16[] = {
    {128, 128, 32, 4, 64, 64}, {128, 128, 64, 3, 64, 32}, {256, 128, 32, 4, 64, 64}, {128, 256, 32, 4, 64, 64},
    {256, 64, 32, 4, 64, 64},  {128, 64, 64, 3, 64, 32},  {64, 128, 64, 3, 32, 64},  {64, 64, 64, 4, 32, 32},
    {192, 128, 32, 4, 48, 64}, {96, 128, 32, 4, 48, 64},  {160, 192, 32, 4, 80, 48}, {160, 128, 32, 4, 80, 32},
};
constexpr Tile kGatherTilesTf32[] = {
    {128, 128, 16, 4, 64, 64}, {128, 128, 32, 3, 64, 32}, {256, 128, 16, 4, 64, 64}, {256, 64, 16, 4, 64, 64},
    {128, 64, 32, 3, 64, 32},  {64, 128, 32, 3, 32, 64},  {64, 64, 32, 4, 32, 32},   {192, 128, 16, 4, 48, 64},
    {160, 192, 16, 4, 80, 48}, {160, 128, 16, 4, 80, 32},
};
// Split numbers take three times the registers a product: warps of 64x64 would spill.
constexpr Tile kGatherTilesSplit[] = {
    {128, 128, 32, 3, 64, 32}, {128, 128, 16, 4, 32, 64}, {256, 64, 16, 4, 64, 32},
    {128, 64, 32, 3, 64, 32},  {64, 128, 32, 3, 32, 64},  {64, 64, 32, 4, 32, 32},
};
// For pixels that are not aligned to 16 bytes.
constexpr Tile kNarrowGatherTiles16[] = {{128, 64, 32, 4, 64, 32}, {96, 64, 32, 4, 48, 32}, {64, 64, 32, 4, 32, 32}};
constexpr Tile kNarrowGatherTiles32[] = {{128, 64, 16, 4, 64, 32}, {96, 64, 16, 4, 48, 32}, {64, 64, 16, 4, 32, 32}};

// Of wgrad: rows are filters, columns (r, s, c), the depth pixels.
constexpr Tile kWgradTiles16[] = {
    {128, 128, 32, 4, 64, 64}, {128, 128, 64, 3, 64, 32}, {256, 128, 32, 4, 64, 64},
    {64, 256, 32, 4, 32, 64},  {128, 64, 64, 3, 64, 32},  {64, 128, 64, 3, 32, 64},
    {64, 64, 64, 4, 32, 32},   {64, 192, 32, 4, 32, 64},  {128, 160, 32, 4, 64, 32},
};
constexpr Tile kWgradTilesTf32[] = {
    {128, 128, 16, 4, 64, 64}, {128, 128, 32, 3, 64, 32}, {256, 128, 16, 4, 64, 64}, {128, 64, 32, 3, 64, 32},
    {64, 128, 32, 3, 32, 64},  {64, 64, 32, 4, 32, 32},   {64, 192, 16, 4, 32, 64},  {128, 160, 16, 4, 64, 32},
};
constexpr Tile kWgradTilesSplit[] = {
    {128, 128, 32, 3, 64, 32},
    {128, 64, 32, 3, 64, 32},
    {64, 128, 32, 3, 32, 64},
    {64, 64, 32, 4, 32, 32},
};
constexpr Tile kNarrowWgradTiles16[] = {{64, 64, 64, 3, 32, 32}, {64, 160, 64, 3, 64, 32}};
constexpr Tile kNarrowWgradTiles32[] = {{64, 64, 32, 3, 32, 32}, {64, 160, 32, 3, 64, 32}};

// The compiled kernels of one element type and precision.
template <class Parameters>
struct KernelSet {
  std::vector<Kernel<Parameters>> tiles;   // best first where nothing else decides
  std::vector<Kernel<Parameters>> narrow;  // for pixels that are not aligned to 16 bytes
};

template <class Element, Precision precision>
const KernelSet<GatherParameters>& gather_kernels();
template <class Element, Precision precision>
const KernelSet<WgradParameters>& wgrad_kernels();

}  // namespace fastconv::mma
