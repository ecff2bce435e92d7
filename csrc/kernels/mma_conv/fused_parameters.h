// What the host tells the kernels that reduce a convolution's output before it is stored.
#pragma once

#include "kernels/mma_conv/parameters.h"

namespace fastconv::mma {

struct PoolWindows {
  FastDivider<uint32_t> patch_width;              // of the patch in outputs of the convolution
  int patch_pixels;                               // of it that are used, at most the rows of a tile
  FastDivider<uint32_t> pooled_columns;           // pooled outputs of a patch in a row
  FastDivider<uint32_t> pooled;                   // in all
  int pooled_rows;                                // in a column
  FastDivider<uint32_t> patches_across, patches;  // of an image
  int rows, columns;                              // R, S of the window
  int stride_height, stride_width, pad_top, pad_left;
  int map_height, map_width;        // P, Q of the convolution
  int pooled_height, pooled_width;  // P', Q'
  uint8_t* offsets;                 // [N, K, P', Q'] by strides
  PixelStrides offset_strides;
  int64_t offset_column_stride;
  bool vector_offsets;  // channels are neighbours and whole chunks of them aligned
  // Of the patch's outputs in shared memory: launch/mma_conv_max_pool.cu.
  int turn_row_shift, turn_column_shift, turn_of_row;

  // By how much the chunks of channels of an output of the patch change places, 0..7.
  FASTCONV_HOST_DEVICE int turn(int row, int column) const {
    return ((row >> turn_row_shift) * turn_of_row + (column >> turn_column_shift)) & 7;
  }
};

// out.output: y [N, K, P', Q'], output_strides its own.
struct PoolGatherParameters {
  GatherParameters gather;
  PoolWindows pool;
};

// The largest element of a part of a map, and its place p * Q + q; -infinity where the part has no element.
struct alignas(8) Best {
  float value;
  int32_t place;
};

struct BestGatherParameters {
  GatherParameters gather;
  FastDivider<uint32_t> tiles_of_image;
  int map_pixels;       // P * Q
  Best* parts_of_maps;  // [N][parts][K]
  int parts;            // of an image
};

struct MergeParameters {
  const Best* parts_of_maps;  // [N][parts][channels]
  void* output;               // y [N, K]
  int64_t* indices;           // [N, K]
  int parts, channels;
  FastDivider<uint32_t> column_blocks;
};

}  // namespace fastconv::mma
