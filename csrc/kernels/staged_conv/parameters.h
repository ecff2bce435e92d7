// What the host tells the kernels that keep the input of an output tile in shared memory. Strides are in elements and
// 64-bit: one kernel serves tensors of any size.
#pragma once

#include "kernels/mma_conv/parameters.h"

namespace fastconv::staged {

constexpr int kTileRows = 128;  // output pixels of a block's tile
constexpr int kThreads = 128;   // each warp has 32 of them

constexpr int kStagingBytes = 80;  // of a warp that stores outputs, for each column

constexpr int kMostOrderedWords = 512;
constexpr uint16_t kNoWord = 0xffff;

// One of the two spatial dimensions. Output i (of the launch: for dgrad, of one residue modulo the stride) lies at
// output_first + i * output_step of the tensor; its first tap lies at source place origin + i * step.
struct Axis {
  int outputs, output_first, output_step;
  int step, origin, source_size;
  // The image in shared memory: `period` places an output, so that places no tap ever takes are left out.
  int image_size;
  FastDivider<uint32_t> period, source_period;  // source_period: divides by `step`

  FASTCONV_HOST_DEVICE bool has(int place) const {
    return static_cast<uint32_t>(place) < static_cast<uint32_t>(source_size);
  }
};

// From a pixel of a tile to another, in the output.
struct PixelStep {
  int bytes, rows, columns;
};

// A tensor [N, C, H, W] of which a block stages what a tile sees, as an image in shared memory.
struct StagedTensor {
  const void* source;  // fprop: x [N, C, H, W], dgrad: dy [N, K, P, Q]
  bool planes;         // the source's channels are not neighbours in memory: its pixels are (NCHW), or nothing is
  int64_t source_batch, source_channel, source_row, source_column;
  int all_channels;
  Axis rows, columns;
  int row_pitch, column_pitch, column_gap;  // of the image, in bytes; a gap after every period of columns

  // By chunks: 16 bytes of channels of a pixel.
  int piece_bytes;       // that one copy moves; 0: elements, whose columns are no neighbours either
  int chunks;            // of a pixel
  int chunk_lanes_log2;  // lanes side by side that take them
  FastDivider<uint32_t> image_columns;
  // Planes: 16 bytes of a row: all of them, 2^n side by side, the one that is read first.
  int row_blocks, blocks_log2, first_block;
};

// A row or a column of a tile's image. None of it depends on the tile, so a block notes it once.
struct alignas(16) ImagePlace {
  int64_t offset;  // in the source, in bytes, from the tile's first row or column
  int source;      // rows or columns from there
  int place;       // in the image, in bytes
};

// Rows that a lane may look up beyond the image's last: the source has none of them.
constexpr int kRowsBeyond = 3;

struct Parameters : StagedTensor {
  const void* weights;        // w, at the tap that is the first one here
  const void* bias;           // one for each output channel, or null
  mma::OutputParameters out;  // without the bias; columns are channels, or pixels of a row where `along_pixels`
  bool along_pixels;          // the output's pixels are neighbours in memory, and its channels are not
  bool is_transposed;         // dgrad: taps outside of the source are no terms of a sum, else they are zeros
  mma::PixelStrides output_strides, residual_strides;
  int64_t output_channel, residual_channel;
  // Outputs get no residual, at most a lower bound for an activation, and are whole chunks, aligned. Then places
  // in the output, in bytes, are told by steps: to the next image, row and column; to the pixels 8 and 16 further in a
  // tile; to those that a lane takes next of the same eight (channels_last); to the next eight channels of a unit, from
  // its last ones to the next unit's first, and to the next unit.
  bool is_plain;
  PixelStep plain_steps[2];
  int64_t plain_batch_bytes;
  int plain_row_bytes, plain_column_bytes, plain_turn_bytes;
  int64_t plain_eight_bytes, plain_last_eight_bytes, plain_unit_bytes;
  int64_t weight_group, weight_output, weight_input, weight_row, weight_column;

  // Tiles of tile_height x tile_width pixels of one image; tile_width is 2^n and at least 8.
  uint32_t tiles;
  FastDivider<uint32_t> tiles_down, tiles_across, slabs;
  int tile_width_log2;

  // A unit: the groups whose filters fill the columns of one product. A block computes `units` of them, its slab.
  int units;
  int unit_groups;    // 1 where there are no groups
  int unit_filters;   // outputs of a unit that may exist; columns beyond are idle
  int unit_channels;  // channels of a unit
  FastDivider<uint32_t> group_filters, group_channels;
  int all_filters, groups;

  // The sum: `steps` of 32 bytes. By words: (tap row, tap column, channel up to channel_pitch), a tap row's words from
  // 4 bytes to 4 bytes; by chunks: (tap, chunk of the unit's channels).
  int steps;
  int taps_down, taps_across, dilation_rows, dilation_columns;
  int channel_pitch;                   // channels that a pixel of the image has room for, by words
  FastDivider<uint32_t> inner, pitch;  // elements of a tap row (by words) or of a tap; channel_pitch
  FastDivider<uint32_t> taps_across_divider;
  FastDivider<uint32_t> depth;  // elements of the sum, whole steps
  // By words: in which order they are multiplied, so that those which are read together lie in different banks; kNoWord
  // for a hole. 0 words: as they are numbered.
  int ordered_words, word_log2;  // word_log2: of the elements of a word
  uint16_t word_order[kMostOrderedWords];

  // Shared memory, in bytes: weights at 0.
  int weight_pitch, table_at, places_at, image_at, zero_at, staging_at;
  int bias_at;  // of the slab's columns, in float32, if there is a bias

  FastDivider<uint32_t> line_chunks, lines_channels;  // staging by words: chunks of a line; channels (planes) or 1
  bool rows_are_lines;                                // by words: an image row is what memory has, without gaps
};

}  // namespace fastconv::staged
