// Tensors into the order that the main loops want: weights by phase and tap, pixels channels-last. 16-byte stores.
#pragma once

#include <type_traits>

#include "common/numeric.h"
#include "kernels/mma_conv/parameters.h"
#include "ptx/device.h"
#include "ptx/streaming.h"

namespace fastconv::mma {

constexpr int kRepackThreads = 256;

// A thread makes one chunk of inputs. Element: uint16_t or uint32_t, for numbers of any kind.
template <class Element>
__global__ void __launch_bounds__(kRepackThreads) repack_weights(const __grid_constant__ RepackParameters parameters) {
  constexpr int kChunk = 16 / sizeof(Element);
  const int64_t item = int64_t{blockIdx.x} * kRepackThreads + threadIdx.x;
  if (item >= parameters.items) return;
  uint32_t rest = static_cast<uint32_t>(item), output, tap, chunk;
  if (parameters.outputs_fastest) {
    uint32_t chunk_and_tap = parameters.all_outputs_divider.split(rest);
    output = rest;
    tap = parameters.chunks_divider.split(chunk_and_tap);
    chunk = chunk_and_tap;
  } else {
    uint32_t output_and_chunk = parameters.taps_divider.split(rest);
    tap = rest;
    output = parameters.chunks_divider.split(output_and_chunk);
    chunk = output_and_chunk;
  }
  uint32_t column = tap;
  const uint32_t row = parameters.taps_across_divider.split(column);
  uint32_t group_output = output;
  const uint32_t group = parameters.outputs.split(group_output);

  const Element* source = static_cast<const Element*>(parameters.source) + group * parameters.group_stride +
                          group_output * parameters.output_stride + row * parameters.row_stride +
                          column * parameters.column_stride;
  ptx::Vector<Element, kChunk> values;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const int input = chunk * kChunk + i;
    values[i] = input < parameters.inputs ? source[input * parameters.input_stride] : Element{0};
  }
  const int rows = parameters.row_taps[row], columns = parameters.column_taps[column];
  const int64_t before =
      parameters.rows_before[row] * parameters.taps_across + rows * parameters.columns_before[column];
  const int64_t place = before * parameters.all_outputs +
                        (int64_t{output} * rows + parameters.row_place[row]) * columns +
                        parameters.column_place[column];
  ptx::store_vector(static_cast<Element*>(parameters.destination) + place * parameters.input_pitch + chunk * kChunk,
                    values);
}

constexpr int kTransposeThreads = 256, kTransposePixels = 64;

template <class Element>
constexpr int kTransposeChannels = 128 / sizeof(Element);  // a whole line of the destination

// Where a pixel lies in its channel's row of the tile. Lanes that read eight chunks of channels, or write sixteen of
// pixels, come to the same bank after half of them; so the second half lies `turn` banks aside: in float32 two, or one
// where a lane writes every second bank.
template <class Element>
__device__ __forceinline__ int pixel_in_row(int channel, int pixel, int turn) {
  return sizeof(Element) == 2 ? pixel ^ (channel >> 5 & 1) << 2 : pixel ^ (pixel >> 5 & 1) * turn;
}

// A block turns a tile of [channels][pixels] into [pixels][channels] through shared memory. The source is read once,
// the result soon again: the cache should keep the latter.
template <class Element>
__global__ void __launch_bounds__(kTransposeThreads)
    to_channels_last(const __grid_constant__ ToChannelsLastParameters parameters) {
  constexpr int kChunk = 16 / sizeof(Element), kChannels = kTransposeChannels<Element>;
  constexpr int kPitch = kTransposePixels + 4 / sizeof(Element);  // an odd number of words
  __shared__ Element tile[kChannels * kPitch];

  uint32_t rest = blockIdx.x;
  uint32_t outer = parameters.channel_tiles.split(rest);
  const int first_channel = rest * kChannels;
  const uint32_t row_index = parameters.pixel_tiles.split(outer);
  const int first_pixel = outer * kTransposePixels;
  uint32_t row = row_index;
  const uint32_t batch = parameters.rows.split(row);
  const Element* source =
      static_cast<const Element*>(parameters.source) + batch * parameters.batch_stride + row * parameters.row_stride;

  // Of all groups, each filled up; null where there is none.
  const auto channel_at = [&](int tile_channel) -> const Element* {
    uint32_t channel = first_channel + tile_channel;
    const uint32_t group = parameters.channel_pitch_divider.split(channel);
    if (channel >= static_cast<uint32_t>(parameters.channels)) return nullptr;
    return source + (int64_t{group} * parameters.channels + channel) * parameters.channel_stride;
  };
  const bool skips = parameters.vector_access && parameters.pixel_stride == 2;
  const int turn = skips ? 1 : 2;
  // A lane loads 16 bytes of a channel, in which every `step`-th element is a pixel.
  const auto stage_chunks = [&](auto step) {
    constexpr int kStep = decltype(step)::value, kPixels = kChunk / kStep, kChunksOfPixels = kTransposePixels / kPixels;
    for (int i = threadIdx.x; i < kChannels * kChunksOfPixels; i += kTransposeThreads) {
      const int tile_channel = i / kChunksOfPixels, tile_pixel = i % kChunksOfPixels * kPixels;
      if (first_channel + tile_channel >= parameters.all_pitches) continue;
      const Element* channel = channel_at(tile_channel);
      const int left = parameters.pixels - first_pixel - tile_pixel;
      ptx::Vector<Element, kPixels> values;
      if (channel != nullptr && left >= kPixels) {
        const auto chunk = ptx::load_streaming<kChunk>(channel + (first_pixel + tile_pixel) * kStep);
#pragma unroll
        for (int j = 0; j < kPixels; ++j) values[j] = chunk[j * kStep];
      } else {
#pragma unroll
        for (int j = 0; j < kPixels; ++j) {
          const bool exists = channel != nullptr && j < left;
          values[j] = exists ? ptx::load_streaming<1>(channel + (first_pixel + tile_pixel + j) * kStep)[0] : Element{0};
        }
      }
#pragma unroll
      for (int j = 0; j < kPixels; ++j) {
        tile[tile_channel * kPitch + pixel_in_row<Element>(tile_channel, tile_pixel + j, turn)] = values[j];
      }
    }
  };
  if (skips) {
    // Memory gives whole sectors: what is skipped is read anyway.
    stage_chunks(std::integral_constant<int, 2>());
  } else if (parameters.vector_access) {
    stage_chunks(std::integral_constant<int, 1>());
  } else {
#pragma unroll 4
    for (int i = threadIdx.x; i < kChannels * kTransposePixels; i += kTransposeThreads) {
      const int tile_channel = i / kTransposePixels, tile_pixel = i % kTransposePixels;
      if (first_channel + tile_channel >= parameters.all_pitches) continue;
      const Element* channel = channel_at(tile_channel);
      const bool exists = channel != nullptr && first_pixel + tile_pixel < parameters.pixels;
      tile[tile_channel * kPitch + pixel_in_row<Element>(tile_channel, tile_pixel, turn)] =
          exists ? ptx::load_streaming<1>(channel + (first_pixel + tile_pixel) * parameters.pixel_stride)[0]
                 : Element{0};
    }
  }
  __syncthreads();

  constexpr int kChunksOfChannels = kChannels / kChunk;
  for (int i = threadIdx.x; i < kTransposePixels * kChunksOfChannels; i += kTransposeThreads) {
    const int tile_pixel = i / kChunksOfChannels, chunk = i % kChunksOfChannels;
    const int pixel = first_pixel + tile_pixel, channel = first_channel + chunk * kChunk;
    if (pixel >= parameters.pixels || channel >= parameters.all_pitches) continue;
    ptx::Vector<Element, kChunk> values;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      const int tile_channel = chunk * kChunk + j;
      values[j] = tile[tile_channel * kPitch + pixel_in_row<Element>(tile_channel, tile_pixel, turn)];
    }
    ptx::store_vector(static_cast<Element*>(parameters.destination) +
                          (int64_t{row_index} * parameters.pixels + pixel) * parameters.all_pitches + channel,
                      values);
  }
}

}  // namespace fastconv::mma
