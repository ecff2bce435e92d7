// Pixels of few channels on their way to shared memory, packed without gaps between them or nearly so: 16 bytes of a
// row at a time, written by words or by elements.
#pragma once

#include "kernels/staged_conv/image_places.cuh"
#include "ptx/device.h"
#include "ptx/keep.h"

namespace fastconv::staged {

// A line of stage_words: an image row of all channels (channels-last), or of one (NCHW): neighbours in memory.
struct Line {
  int begin, end, length;  // bytes that the source has, and those that the image has, counted from the image's first
  uint32_t whole;          // of the source's bytes those that 16 bytes may begin with
};

// The 16 bytes of a line from its byte `first` on, aligned, as words. Not read where the image has none of them.
template <class Element>
__device__ __forceinline__ ptx::Vector<uint32_t, 4> load_line_chunk(const unsigned char* from, int first,
                                                                    const Line& line, bool line_exists) {
  constexpr int kElement = sizeof(Element), kOfWord = 4 / kElement;
  // Both bounds by one comparison.
  if (line_exists && static_cast<uint32_t>(first - line.begin) < line.whole && first < line.length) {
    return ptx::load_vector_read_only<4>(reinterpret_cast<const uint32_t*>(from));
  }
  using Bits = typename ptx::detail::BitsOf<kElement>::type;
  ptx::Vector<uint32_t, 4> words{};
#pragma unroll
  for (int j = 0; j < 16 / kElement; ++j) {
    const int byte = first + j * kElement;
    const bool exists = line_exists && byte >= max(0, line.begin) && byte < min(line.end, line.length);
    const uint32_t bits = exists ? reinterpret_cast<const Bits*>(from)[j] : 0;
    words[j / kOfWord] |= bits << (j % kOfWord * 16);
  }
  return words;
}

// What the staging of lines looks up, beside the places of pixels: where lines lie, and behind them, in 16 bits, where
// element e of a channels-last line goes in its image row, in bytes.
template <class Element>
__device__ __forceinline__ void note_lines(const Parameters& p, unsigned char* table) {
  auto* lines = reinterpret_cast<ImagePlace*>(table);
  const int channels = static_cast<int>(p.lines_channels.divisor()), count = p.rows.image_size * channels;
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const int y = static_cast<int>(p.lines_channels.divide(i)), channel = i - y * channels;
    const int source = source_place(p.rows, 0, y) - p.rows.origin;
    const int64_t offset = source * p.source_row + channel * p.source_channel;
    store_place(lines + i, {offset * static_cast<int>(sizeof(Element)), source,
                            y * p.row_pitch + channel * static_cast<int>(sizeof(Element))});
  }
  auto* places = reinterpret_cast<uint16_t*>(lines + count);
  for (int e = threadIdx.x; e < p.columns.image_size * p.all_channels; e += kThreads) {
    uint32_t channel = e;
    const uint32_t column = p.group_channels.split(channel);
    places[e] = static_cast<uint16_t>(column_place(p, column) + channel * sizeof(Element));
  }
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
// out one by one. table: see note_lines; a plane's pixels that lie equally far apart do without its places.
template <class Element>
__device__ __forceinline__ void stage_words(const Parameters& p, const Tile& tile, unsigned char* image,
                                            const unsigned char* table) {
  constexpr int kElement = sizeof(Element), kOfWord = 4 / kElement;
  const int thread = ptx::keep(static_cast<int>(threadIdx.x)), lane = thread & 31;
  const int per_pixel = (p.planes ? 1 : p.all_channels) * kElement;  // bytes of a line
  const TileSource<Element> source(p, tile, 0);
  const int begin = -source.column * per_pixel, source_length = p.columns.source_size * per_pixel;
  const Line in_line{begin, begin + source_length, p.columns.image_size * per_pixel,
                     ptx::keep(static_cast<uint32_t>(max(source_length - 15, 0)))};
  const int lines = p.rows.image_size * static_cast<int>(p.lines_channels.divisor());
  const int line_chunks = static_cast<int>(p.line_chunks.divisor()), items = lines * line_chunks;
  const auto* const line_places = reinterpret_cast<const ImagePlace*>(table);
  const auto* const places = reinterpret_cast<const uint16_t*>(line_places + lines);
  // Eight lanes that begin at a multiple of eight are neighbours of one line: in 32 bits, lanes_of_line in launch/.
  const bool whole_eights = kOfWord == 1 && line_chunks % 8 == 0;
  const int line_bytes = (in_line.length + 3) & ~3;
  uint32_t chunk = thread, step_chunk = kThreads;
  int line = static_cast<int>(p.line_chunks.split(chunk));
  const int step_line = static_cast<int>(p.line_chunks.split(step_chunk));
#pragma unroll 1
  for (int warp_item = thread - lane; warp_item < items; warp_item += kThreads) {
    const bool exists = line < lines;  // all lanes are needed below
    const ImagePlace place = load_place(line_places + min(line, lines - 1));
    const bool line_exists = exists && p.rows.has(source.row + place.source);
    // Of the line's first element; where that lies before the tensor, it is not read.
    const unsigned char* const from = source.first + place.offset;
    const int before = static_cast<int>(reinterpret_cast<uintptr_t>(from)) & 15;
    const int first = static_cast<int>(16 * chunk) - before;
    // Counted from 16 bytes before, the distance has no sign.
    const auto read =
        load_line_chunk<Element>(from - 16 + static_cast<uint32_t>(first + 16), first, in_line, line_exists);
    uint32_t words[4] = {read[0], read[1], read[2], read[3]};
    unsigned char* const to = image + place.place;
    if (p.rows_are_lines) {
      const bool is_odd = first % 4 != 0;
      if constexpr (kOfWord == 2) {
        const uint32_t next = __shfl_down_sync(0xffffffffu, words[0], 1);
        if (is_odd) {
          // Between warps the two halves of a word are written apart.
          auto* halves = reinterpret_cast<uint16_t*>(to + first);
          if (lane == 0 && exists && first >= 0 && first < in_line.length) halves[0] = words[0] & 0xffffu;
          if (lane == 31 && exists && first + 14 >= 0 && first + 14 < in_line.length) halves[7] = words[3] >> 16;
#pragma unroll
          for (int k = 0; k < 4; ++k) words[k] = words[k] >> 16 | (k < 3 ? words[k + 1] : next) << 16;
        }
      }
      const int first_byte = first + (first & 2);
      const int bank = (place.place + first_byte) >> 2;  // seen from the image's first
      const int turn = ((whole_eights ? lane >> 3 : bank >> 5) - bank) & 3;
      uint32_t end = exists ? line_bytes : 0;
      // The next warp writes the word that begins with this one's last element.
      if (kOfWord == 2 && is_odd && lane == 31) end = min(end, static_cast<uint32_t>(first_byte + 12));
      turn_words(words, turn);
      const uint32_t at[2] = {4 * static_cast<uint32_t>(turn), 4 * static_cast<uint32_t>((turn + 1) & 3)};
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const uint32_t byte = first_byte + (at[step % 2] ^ (step / 2 * 8));
        if (byte < end) *reinterpret_cast<uint32_t*>(to + byte) = words[step];
        __syncwarp();  // the lanes' turns differ so that they can write at once
      }
    } else {
      const int y = static_cast<int>(p.lines_channels.divide(line)),
                channel = line - y * static_cast<int>(p.lines_channels.divisor());
      const int places_apart = p.planes ? p.all_channels : 1;
      const bool is_even = p.planes && p.column_gap == 0;  // pixels are told without the table
      // The channels of a pixel are neighbours: lanes of one row turn alike, and those of the next row half a turn
      // more.
      int turn = p.planes ? p.all_channels * (2 * (y & 1) - y * (p.row_pitch / 4)) : static_cast<int>(chunk) >> 1;
      if (whole_eights && p.planes) {
        // Chunks of an odd number of channels are an odd multiple of four words apart: eight lanes are in eight banks,
        // whose number modulo 4 is that of the eight.
        turn = p.all_channels * ((lane >> 3) - channel - y * (p.row_pitch / 4)) - first / kElement;
      }
      turn_words(words, turn);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
#pragma unroll
        for (int half = 0; half < kOfWord; ++half) {
          const int element = first / kElement + ((step + turn) & 3) * kOfWord + half;
          if (exists && static_cast<uint32_t>(element) < static_cast<uint32_t>(in_line.length / kElement)) {
            unsigned char* const element_at =
                to + (is_even ? element * p.column_pitch : places[element * places_apart]);
            if constexpr (kOfWord == 2) {
              *reinterpret_cast<uint16_t*>(element_at) =
                  static_cast<uint16_t>(half == 0 ? words[step] : words[step] >> 16);
            } else {
              *reinterpret_cast<uint32_t*>(element_at) = words[step];
            }
          }
          __syncwarp();
        }
      }
    }
    chunk += step_chunk;
    line += step_line;
    if (chunk >= static_cast<uint32_t>(line_chunks)) {
      chunk -= line_chunks;
      ++line;
    }
  }
}

}  // namespace fastconv::staged
