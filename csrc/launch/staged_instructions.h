// What staged kernels issue, for their predictions: tests/core/family_instructions.csv has the same numbers, of sm_90a
// in float16 and float32, and a test compares a tile's. Of outputs that a residual or an activation other than relu
// makes slow, they are what is issued without.
#pragma once

#include "kernels/mma_conv/shape.cuh"
#include "launch/mma_cost.h"

namespace fastconv::staged {

constexpr double kWarps = 4;  // of a block

// By the columns of a unit. product: an instruction that multiplies 16x8 outputs; split TF32 has three. stage: 16 bytes
// of each lane; by chunks, stage_planes in NCHW. store, store_any: what a warp does for each pass over units beside the
// products, where outputs are plain and where they are not. rest: of a warp, for each tile.
struct ConvInstructions {
  bool by_words;
  int columns;
  mma::Precision precision;
  double product, stage, stage_planes, store, store_any, rest;
};
inline constexpr ConvInstructions kConvInstructions[] = {
    {false, 16, mma::Precision::native, 4.6, 28, 39, 225, 684, 186},
    {false, 16, mma::Precision::split_tf32, 11.8, 28, 28, 398, 1106, 211},
    {false, 16, mma::Precision::tf32, 9.4, 28, 28, 315, 1064, 214},
    {false, 32, mma::Precision::native, 2.9, 28, 39, 219, 734, 187},
    {false, 32, mma::Precision::split_tf32, 8.2, 28, 28, 365, 1068, 213},
    {false, 32, mma::Precision::tf32, 5.8, 28, 28, 304, 1036, 215},
    {false, 8, mma::Precision::native, 8.5, 28, 39, 238, 734, 186},
    {false, 8, mma::Precision::split_tf32, 19.3, 28, 28, 397, 1104, 207},
    {false, 8, mma::Precision::tf32, 17.8, 28, 28, 327, 1042, 209},
    {true, 32, mma::Precision::native, 5.3, 92, 0, 190, 488, 130},
    {true, 32, mma::Precision::split_tf32, 9.1, 85, 0, 353, 1062, 166},
    {true, 32, mma::Precision::tf32, 7.8, 85, 0, 218, 730, 137},
    {true, 64, mma::Precision::native, 3.5, 91, 0, 297, 916, 129},
    {true, 64, mma::Precision::split_tf32, 6.7, 85, 0, 606, 2174, 174},
    {true, 64, mma::Precision::tf32, 4.7, 85, 0, 395, 1484, 169},
};

// By the taps of groups, 0 for stems, and by the channels of a warp or the terms of a block.
struct WgradInstructions {
  int taps, width;
  mma::Precision precision;
  double product, stage, stage_planes, gradient, gradient_planes, rest;
};
inline constexpr WgradInstructions kWgradInstructions[] = {
    {1, 32, mma::Precision::native, 5.8, 28, 40, 28, 41, 125},
    {1, 32, mma::Precision::split_tf32, 13.2, 28, 29, 28, 30, 148},
    {1, 32, mma::Precision::tf32, 14.8, 28, 29, 28, 30, 151},
    {9, 16, mma::Precision::native, 4.2, 28, 41, 30, 42, 156},
    {9, 16, mma::Precision::split_tf32, 10.2, 28, 29, 30, 29, 221},
    {9, 16, mma::Precision::tf32, 10.1, 28, 30, 28, 31, 195},
    {9, 32, mma::Precision::native, 2.9, 28, 41, 30, 42, 153},
    {9, 32, mma::Precision::split_tf32, 9.2, 28, 29, 30, 29, 217},
    {9, 32, mma::Precision::tf32, 8.5, 28, 30, 28, 31, 207},
    {0, 64, mma::Precision::native, 5.6, 93, 0, 30, 40, 221},
    {0, 64, mma::Precision::split_tf32, 13.2, 87, 0, 28, 30, 152},
    {0, 64, mma::Precision::tf32, 13.4, 88, 0, 30, 30, 146},
    {0, 192, mma::Precision::native, 3.6, 92, 0, 30, 42, 209},
    {0, 192, mma::Precision::split_tf32, 7.7, 89, 0, 30, 30, 180},
    {0, 192, mma::Precision::tf32, 5.8, 89, 0, 30, 30, 180},
};

inline ConvInstructions conv_instructions(bool by_words, int columns, mma::Precision precision) {
  for (const ConvInstructions& one : kConvInstructions) {
    if (one.by_words == by_words && one.columns == columns && one.precision == precision) return one;
  }
  return {};
}

inline WgradInstructions wgrad_instructions(int taps, int width, mma::Precision precision) {
  for (const WgradInstructions& one : kWgradInstructions) {
    if (one.taps == taps && one.width == width && one.precision == precision) return one;
  }
  return {};
}

// Products of so many outputs and terms, by one instruction each.
inline double product_instructions(double rows, double columns, double depth, mma::Precision precision) {
  const double terms = precision == mma::Precision::native ? 16 : 8;
  return rows / 16 * columns / 8 * depth / terms * (precision == mma::Precision::split_tf32 ? 3 : 1);
}

}  // namespace fastconv::staged
