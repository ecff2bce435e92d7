// What staged kernels issue, for their predictions: tests/core/family_instructions.csv has the same numbers, of sm_90a
// in float16 and float32, and a test compares a tile's. Of outputs that a residual or an activation other than relu
// makes slow, they are what is issued without.
#pragma once

#include "kernels/mma_conv/shape.cuh"
#include "launch/mma_cost.h"

namespace fastconv::staged {

constexpr double kWarps = 4;       // of a block
constexpr double kSchedulers = 4;  // of a multiprocessor; each issues an instruction a clock

// By the columns of a unit. product: an instruction that multiplies 16x8 outputs; split TF32 has three. stage: 16 bytes
// of each lane. store, store_any: what a warp does for each pass over units beside the products, where outputs are
// plain and where they are not. rest: of a warp, for each tile.
struct ConvInstructions {
  bool by_words;
  int columns;
  mma::Precision precision;
  double product, stage, store, store_any, rest;
};
inline constexpr ConvInstructions kConvInstructions[] = {
    {false, 16, mma::Precision::native, 4.6, 86, 230, 680, 110},
    {false, 16, mma::Precision::split_tf32, 11.8, 87, 387, 1036, 111},
    {false, 16, mma::Precision::tf32, 11.4, 87, 305, 1004, 111},
    {false, 32, mma::Precision::native, 2.9, 86, 225, 680, 110},
    {false, 32, mma::Precision::split_tf32, 8.2, 87, 364, 1068, 136},
    {false, 32, mma::Precision::tf32, 7.8, 87, 301, 1012, 110},
    {false, 8, mma::Precision::native, 8.5, 86, 242, 680, 110},
    {false, 8, mma::Precision::split_tf32, 19.3, 87, 393, 1036, 111},
    {false, 8, mma::Precision::tf32, 19.8, 87, 316, 1004, 111},
    {true, 32, mma::Precision::native, 7.1, 136, 187, 494, 109},
    {true, 32, mma::Precision::split_tf32, 9.7, 112, 362, 1156, 146},
    {true, 32, mma::Precision::tf32, 11.6, 112, 224, 748, 111},
    {true, 64, mma::Precision::native, 4.6, 136, 285, 1028, 109},
    {true, 64, mma::Precision::split_tf32, 7.0, 112, 607, 2332, 146},
    {true, 64, mma::Precision::tf32, 7.6, 114, 399, 1490, 144},
};

// By the taps of groups, 0 for stems, and by the channels of a warp or the terms of a block.
struct WgradInstructions {
  int taps, width;
  mma::Precision precision;
  double product, stage, stage_gradient, rest;
};
inline constexpr WgradInstructions kWgradInstructions[] = {
    {1, 32, mma::Precision::native, 6.0, 86, 106, 63},        {1, 32, mma::Precision::split_tf32, 13.8, 91, 107, 64},
    {1, 32, mma::Precision::tf32, 16.2, 85, 107, 78},         {9, 16, mma::Precision::native, 4.3, 86, 106, 63},
    {9, 16, mma::Precision::split_tf32, 10.5, 83, 107, 59},   {9, 16, mma::Precision::tf32, 10.8, 85, 108, 77},
    {9, 32, mma::Precision::native, 2.9, 94, 129, 76},        {9, 32, mma::Precision::split_tf32, 9.4, 94, 110, 93},
    {9, 32, mma::Precision::tf32, 9.0, 95, 130, 69},          {0, 192, mma::Precision::split_tf32, 8.7, 109, 108, 112},
    {0, 64, mma::Precision::split_tf32, 14.8, 111, 106, 100}, {0, 192, mma::Precision::native, 5.7, 135, 111, 103},
    {0, 192, mma::Precision::tf32, 7.5, 122, 106, 112},       {0, 64, mma::Precision::native, 9.0, 136, 107, 81},
    {0, 64, mma::Precision::tf32, 14.4, 114, 108, 69},
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
