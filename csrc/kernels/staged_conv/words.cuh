// Pixels of few channels on their way to shared memory, packed without gaps between them or nearly so: 16 bytes of a
// row at a time, written by words or by elements.
#pragma once

#include "kernels/staged_conv/image.cuh"
#include "ptx/device.h"

namespace fastconv::staged {

// A line of stage_words: an image row of all channels (channels-last), or of one (NCHW): neighbours in memory.
struct Line {
  int begin, end, length;  // elements that the source has, and those that the image has, counted from the image's first
};

// A chunk of a line: the aligned 16 bytes of memory that hold its elements [first, first + kChunk). Not read where the
// image has none of them.
template <class Element>
__device__ __forceinline__ ptx::Vector<Element, 16 / sizeof(Element)> load_line_chunk(const Element* from, int first,
                                                                                      const Line& line,
                                                                                      bool line_exists) {
  constexpr int kChunk = 16 / sizeof(Element);
  if (line_exists && first >= line.begin && first + kChunk <= line.end && first < line.length) {
    return ptx::load_vector_read_only<kChunk>(from + first);
  }
  ptx::Vector<Element, kChunk> values;
#pragma unroll
  for (int j = 0; j < kChunk; ++j) {
    const int element = first + j;
    const bool exists = line_exists && element >= max(0, line.begin) && element < min(line.end, line.length);
    values[j] = exists ? from[element] : Element{};
  }
  return values;
}

// Lanes hold 16 bytes each that belong side by side in shared memory, and write them in four steps. If all wrote their
// first word first, lanes whose words are 32 words apart would meet in a bank; so they begin with different words.
// Afterwards word s is what the lane writes in step s: its word (s + turn) modulo 4.
__device__ __forceinline__ void turn_words(uint32_t (&words)[4], int turn) {
#pragma unroll
  for (int bit = 1; bit <= 2; ++bit) {
    const uint32_t before[4] = {words[0], words[1], words[2], words[3]};
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = (turn & bit) != 0 ? before[(i + bit) % 4] : before[i];
  }
}

// Pixels of few channels: lines are read as the aligned chunks they lie in. Where an image row is a line as it stands
// (channels-last without gaps between pixels), chunks are written word by word; an odd first element is a word's upper
// half, so that words are put together of neighbours, and of the next lane's first element. Else elements are handed
// out one by one. places: where element e of a channels-last line goes in its image row, in bytes; a plane's pixels
// that lie equally far apart do without.
template <class Element>
__device__ __forceinline__ void stage_words(const Parameters& p, const Tile& tile, unsigned char* image,
                                            const uint16_t* places) {
  constexpr int kElement = sizeof(Element), kChunk = 16 / kElement, kOfWord = 4 / kElement;
  const int lane = threadIdx.x & 31;
  const int per_pixel = p.planes ? 1 : p.all_channels;  // elements of a line
  const int first_column = p.columns.origin + tile.column * p.columns.step;
  const int begin = -first_column * per_pixel;
  const Line in_line{begin, begin + p.columns.source_size * per_pixel, p.columns.image_size * per_pixel};
  const int lines = p.rows.image_size * static_cast<int>(p.lines_channels.divisor());
  const int items = lines * static_cast<int>(p.line_chunks.divisor());
  // Eight lanes that begin at a multiple of eight are neighbours of one line: in 32 bits, lanes_of_line in launch/.
  const bool whole_eights = kOfWord == 1 && p.line_chunks.divisor() % 8 == 0;
  const Element* source = static_cast<const Element*>(p.source) + tile.batch * p.source_batch;
#pragma unroll 1
  for (int warp_item = static_cast<int>(threadIdx.x) - lane; warp_item < items; warp_item += kThreads) {
    const bool exists = warp_item + lane < items;
    const int i = exists ? warp_item + lane : items - 1;  // all lanes are needed below
    const uint32_t line = p.line_chunks.divide(i);
    const int chunk = i - static_cast<int>(line * p.line_chunks.divisor());
    const uint32_t y = p.lines_channels.divide(line);
    const int channel = static_cast<int>(line - y * p.lines_channels.divisor());
    const int row = source_place(p.rows, tile.row, y);
    // Of the line's first element; where that lies before the tensor, it is not read.
    const Element* from = source + row * p.source_row + first_column * p.source_column + channel * p.source_channel;
    const int misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15) / kElement;
    const int first = chunk * kChunk - misaligned;
    const bool line_exists = exists && static_cast<uint32_t>(row) < static_cast<uint32_t>(p.rows.source_size);
    const auto values = load_line_chunk(from, first, in_line, line_exists);
    const auto read = ptx::detail::reinterpret_bits<ptx::Vector<uint32_t, 4>>(values);
    uint32_t words[4] = {read[0], read[1], read[2], read[3]};
    unsigned char* to = image + static_cast<int>(y) * p.row_pitch;
    if (p.rows_are_lines) {
      const bool is_odd = first % kOfWord != 0;
      if constexpr (kOfWord == 2) {
        const uint32_t next = __shfl_down_sync(0xffffffffu, words[0], 1);
        if (is_odd) {
          // Between warps the two halves of a word are written apart.
          auto* halves = reinterpret_cast<uint16_t*>(to) + first;
          if (lane == 0 && exists && first >= 0 && first < in_line.length) halves[0] = words[0] & 0xffffu;
          if (lane == 31 && exists && first + 7 >= 0 && first + 7 < in_line.length) halves[7] = words[3] >> 16;
#pragma unroll
          for (int k = 0; k < 4; ++k) words[k] = words[k] >> 16 | (k < 3 ? words[k + 1] : next) << 16;
        }
      }
      const int first_word = (first + is_odd) / kOfWord;
      const int bank = static_cast<int>(y) * (p.row_pitch / 4) + first_word;  // seen from the image's first
      const int turn = ((whole_eights ? lane >> 3 : bank >> 5) - bank) & 3, cut = is_odd && lane == 31 ? 3 : 4;
      const int line_words = exists ? (in_line.length + kOfWord - 1) / kOfWord : 0;
      turn_words(words, turn);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const int k = (step + turn) & 3, word = first_word + k;
        if (k < cut && static_cast<uint32_t>(word) < static_cast<uint32_t>(line_words)) {
          reinterpret_cast<uint32_t*>(to)[word] = words[step];
        }
        __syncwarp();  // the lanes' turns differ so that they can write at once
      }
      continue;
    }
    to += channel * kElement;
    const int places_apart = p.planes ? p.all_channels : 1;
    const bool is_even = p.planes && p.column_gap == 0;  // pixels are told without the table
    // The channels of a pixel are neighbours: lanes of one row turn alike, and those of the next row half a turn more.
    int turn = p.planes ? p.all_channels * static_cast<int>(2 * (y & 1) - y * (p.row_pitch / 4)) : chunk >> 1;
    if (whole_eights && p.planes) {
      // Chunks of an odd number of channels are an odd multiple of four words apart: eight lanes are in eight banks,
      // whose number modulo 4 is that of the eight.
      turn = p.all_channels * ((lane >> 3) - channel - static_cast<int>(y) * (p.row_pitch / 4)) - first;
    }
    turn_words(words, turn);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int half = 0; half < kOfWord; ++half) {
        const int element = first + ((step + turn) & 3) * kOfWord + half;
        if (exists && static_cast<uint32_t>(element) < static_cast<uint32_t>(in_line.length)) {
          unsigned char* place = to + (is_even ? element * p.column_pitch : places[element * places_apart]);
          if constexpr (kOfWord == 2) {
            *reinterpret_cast<uint16_t*>(place) = static_cast<uint16_t>(half == 0 ? words[step] : words[step] >> 16);
          } else {
            *reinterpret_cast<uint32_t*>(place) = words[step];
          }
        }
        __syncwarp();
      }
    }
  }
}

}  // namespace fastconv::staged
