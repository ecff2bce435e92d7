// A convolution in the words of the staged kernels, without the data: dimensions, units, and how the tile of an output
// and its image lie in shared memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "launch/mma_conv.h"
#include "launch/staged_chunks.h"
#include "launch/staged_conv.h"
#include "launch/staged_word_order.h"
#include "launch/tiling.h"

namespace fastconv::staged {

// One dimension, or for dgrad one residue of its outputs modulo the stride, which share their taps. Taps are counted
// so that later ones take later places of the source.
struct AxisPlan {
  int outputs, output_first, output_step, step, origin, source_size;
  int taps, dilation;       // dilation: places of the source between taps
  int first_tap, tap_step;  // of the filter: tap i is the filter's first_tap + i * tap_step

  int span() const { return taps == 0 ? 0 : (taps - 1) * dilation + 1; }
};

inline std::vector<AxisPlan> axis_plans(const ConvProblem& problem, int axis) {
  const int dimension = 2 + axis, stride = problem.stride[axis], dilation = problem.dilation[axis];
  const int taps = static_cast<int>(problem.w.sizes[dimension]), padding = problem.padding[2 * axis];
  const int x = static_cast<int>(problem.x.sizes[dimension]), y = static_cast<int>(problem.y.sizes[dimension]);
  if (problem.pass != ConvPass::dgrad) return {{y, 0, 1, stride, -padding, x, taps, dilation, 0, 1}};
  std::vector<AxisPlan> plans;
  const int common = std::gcd(stride, dilation), tap_step = stride / common;
  for (int phase = 0; phase < std::min(stride, x); ++phase) {
    int last = taps - 1;
    while (last >= 0 && (phase + padding - last * dilation) % stride != 0) --last;
    const int count = last < 0 ? 0 : last / tap_step + 1;
    const int origin = count == 0 ? 0 : (phase + padding - last * dilation) / stride;
    plans.push_back(
        {(x - phase + stride - 1) / stride, phase, stride, 1, origin, y, count, dilation / common, last, -tap_step});
  }
  return plans;
}

// What all launches of a problem share.
struct Geometry {
  bool by_words, transposed;
  int element, chunk, groups;
  Operand source, output;
  int group_channels, group_filters;  // of the source and of the output
  int channel_pitch = 0;              // by words: see Parameters
  int unit_groups = 1, unit_channels, unit_filters, unit_columns, units;
  Kernel kernel{};
  int slab_units;

  Geometry(const ConvProblem& problem, bool by_words)
      : by_words(by_words),
        transposed(problem.pass == ConvPass::dgrad),
        element(size_of(problem.dtype)),
        chunk(16 / element),
        groups(problem.groups),
        source(transposed ? problem.y : problem.x),
        output(transposed ? problem.x : problem.y),
        group_channels(static_cast<int>(source.sizes[1] / groups)),
        group_filters(static_cast<int>(output.sizes[1] / groups)) {
    const int filters = static_cast<int>(output.sizes[1]);
    if (by_words) {
      // Two elements of 16 bits are one word, which must not begin in the middle of another.
      const bool is_odd = element == 2 && group_channels % 2 == 1;
      const bool pad = is_odd && (problem.stride[1] % 2 == 1 || problem.dilation[1] > 1);
      channel_pitch = group_channels + pad;
      unit_channels = group_channels;
      unit_filters = unit_columns = filters > 32 ? 64 : 32;
      units = static_cast<int>(ceil_div(filters, unit_columns));
    } else {
      unit_groups = chunk / std::gcd(chunk, group_channels);
      unit_channels = unit_groups * group_channels;
      unit_filters = unit_groups * group_filters;
      unit_columns = unit_filters <= 8 ? 8 : unit_filters <= 16 ? 16 : 32;
      units = static_cast<int>(ceil_div(groups, unit_groups));
    }
  }

  // Units of a block, a multiple of what the kernel multiplies at once: for stems as many as there are, for groups as
  // fill 128 bytes of a pixel.
  void choose_kernel(const std::vector<Kernel>& kernels, int most_weight_bytes, int weight_pitch) {
    for (const Kernel& one : kernels) {
      if (one.by_words == by_words && one.unit_columns == unit_columns) kernel = one;
    }
    const int affordable = most_weight_bytes / (kernel.units * unit_columns * weight_pitch);
    const int wanted = by_words ? units : 128 / (unit_channels * element * kernel.units);
    const int passes = std::max(1, std::min({wanted, affordable, static_cast<int>(ceil_div(units, kernel.units))}));
    slab_units = passes * kernel.units;
  }
};

// Of bytes of shared memory. More than an int holds are as good as 2^30: no block has as many.
inline int round_to(int64_t value, int multiple) {
  return static_cast<int>(mma::round_up(std::min<int64_t>(value, 1 << 30), multiple));
}

// Whether rows are read plane by plane. Those of one channel are channels_last as well.
inline bool is_read_by_planes(const Operand& operand) {
  return is_planes(operand) && !(operand.sizes[1] == 1 && operand.strides[3] == 1);
}

// Pixels of few channels that the staging by words can read: channels-last, or NCHW.
inline bool has_dense_pixels(const Operand& operand) {
  const auto& [sizes, strides] = operand;
  return ((strides[1] == 1 || sizes[1] == 1) && strides[3] == sizes[1]) || is_planes(operand);
}

// Why no staged kernel takes the problem; empty where they may.
inline std::string why_not_any(const ConvProblem& problem) {
  if (problem.dtype == DataType::float64) return "tensor cores have no float64 convolution here";
  if (problem.target.capability < 80) return "needs compute capability 8.0 or later";
  if (problem.x.count() == 0 || problem.w.count() == 0 || problem.y.count() == 0) return "an operand is empty";
  for (const Operand* operand : {&problem.x, &problem.y}) {
    if (operand->sizes[0] * operand->sizes[2] * operand->sizes[3] >= int64_t{1} << 30) return "2^30 pixels or more";
  }
  for (int axis = 0; axis < 2; ++axis) {
    // A tile's image is counted in 32 bits; none that is larger would fit into shared memory.
    constexpr int64_t kMost = 1 << 16;
    const int64_t span = problem.dilation[axis] * (problem.w.sizes[2 + axis] - 1) + 1;
    const int64_t padding = std::max(problem.padding[2 * axis], problem.padding[2 * axis + 1]);
    if (const int64_t largest = std::max({int64_t{problem.stride[axis]}, span, padding}); largest > kMost) {
      return "a stride, a padding or a filter that spans " + std::to_string(largest) + "; accepted are up to " +
             std::to_string(kMost);
    }
  }
  return reason_for_padding(problem);
}

// A configuration is the tile of output pixels, "8x16" for 8 rows of 16.
constexpr int kLeastWidthLog2 = 3, kMostWidthLog2 = 7;

inline std::string config_name(int width_log2) {
  return std::to_string(kTileRows >> width_log2) + "x" + std::to_string(1 << width_log2);
}

inline int parse_config(const std::string& text) {
  for (int i = kLeastWidthLog2; i <= kMostWidthLog2; ++i) {
    if (config_name(i) == text) return i;
  }
  return -1;
}

inline Axis axis_of(const AxisPlan& plan, int tile_outputs, bool leave_gaps_out) {
  Axis axis{};
  axis.outputs = plan.outputs;
  axis.output_first = plan.output_first;
  axis.output_step = plan.output_step;
  axis.step = plan.step;
  axis.origin = plan.origin;
  axis.source_size = plan.source_size;
  const int period = leave_gaps_out ? std::min(plan.step, std::max(plan.span(), 1)) : plan.step;
  axis.period = FastDivider<uint32_t>(period);
  axis.source_period = FastDivider<uint32_t>(plan.step);
  axis.image_size = plan.taps == 0 ? 0 : (tile_outputs - 1) * period + plan.span();
  return axis;
}

inline void set_steps(Parameters& p, const Geometry& geometry, int64_t steps) {
  p.steps = static_cast<int>(std::max<int64_t>(steps, 1));  // of nothing, where no tap is left
  // In 32 bits rows are packed with the chunk between them, so that lanes go on in the next banks at a row's end.
  const int between = geometry.element == 4 ? geometry.chunk : 0;
  p.depth = FastDivider<uint32_t>(p.steps * 32 / geometry.element + between);
}

// The terms as they are numbered.
inline void lay_out_sum(Parameters& p, const Geometry& geometry, const AxisPlan& rows, const AxisPlan& columns) {
  const int step_depth = 32 / geometry.element;
  const bool empty = rows.taps == 0 || columns.taps == 0;
  int tap_elements = geometry.unit_channels, terms = rows.taps * columns.taps * tap_elements;
  if (geometry.by_words) {
    tap_elements = round_to(int64_t{columns.taps} * geometry.channel_pitch, 4 / geometry.element);
    terms = rows.taps * tap_elements;
  }
  set_steps(p, geometry, ceil_div(terms, step_depth));
  p.taps_down = empty ? 0 : rows.taps;
  p.taps_across = columns.taps;
  p.dilation_rows = rows.dilation;
  p.dilation_columns = columns.dilation;
  p.channel_pitch = geometry.channel_pitch;
  p.inner = FastDivider<uint32_t>(tap_elements);
  p.pitch = FastDivider<uint32_t>(geometry.channel_pitch);
  p.taps_across_divider = FastDivider<uint32_t>(columns.taps);
}

// Tiles, and the sizes of the image in shared memory. pixel_bytes: by chunks, of a pixel.
inline void lay_out_axes(Parameters& p, const Geometry& geometry, const AxisPlan& rows, const AxisPlan& columns,
                         int tile_width_log2, int pixel_bytes) {
  const int tile_width = 1 << tile_width_log2, tile_height = kTileRows / tile_width;
  p.tile_width_log2 = tile_width_log2;
  p.rows = axis_of(rows, tile_height, true);
  p.columns = axis_of(columns, tile_width, !geometry.by_words);
  if (p.taps_down == 0) p.rows.image_size = p.columns.image_size = 0;
  const int64_t down = ceil_div(rows.outputs, tile_height), across = ceil_div(columns.outputs, tile_width);
  p.tiles = static_cast<uint32_t>(geometry.output.sizes[0] * down * across);
  p.tiles_down = FastDivider<uint32_t>(down);
  p.tiles_across = FastDivider<uint32_t>(across);
  p.all_filters = static_cast<int>(geometry.output.sizes[1]);
  p.all_channels = static_cast<int>(geometry.source.sizes[1]);
  p.column_pitch = geometry.by_words ? geometry.channel_pitch * geometry.element : pixel_bytes;
}

inline int64_t row_bytes(const Parameters& p) {
  const int period = static_cast<int>(p.columns.period.divisor());
  return int64_t{p.columns.image_size} * p.column_pitch + p.columns.image_size / period * p.column_gap;
}

// Sets the pixels apart. is_spread: whether pixels so many bytes apart are read without bank conflicts.
template <class IsSpread>
void spread_pixels(Parameters& p, const Geometry& geometry, const IsSpread& is_spread) {
  const int period = static_cast<int>(p.columns.period.divisor());
  p.column_gap = 0;
  while (!is_spread(period * p.column_pitch + p.column_gap)) p.column_gap += geometry.by_words ? 4 : 16;
  p.row_pitch = round_to(row_bytes(p), 16);
}

// Whether a tile's image is larger than any block has room for: then it is refused, wherever its words would lie.
inline bool is_beyond_any_block(const Parameters& p, int64_t row_pitch) {
  return p.rows.image_size * row_pitch > int64_t{1} << 20;
}

// Bank conflicts where a tile's image is written (stage_words), if its rows begin at boundaries of 16 bytes: where
// channels_last rows are written word by word, or planes element by element. Counts no further than `enough`.
inline int conflicts_of_staging(const Parameters& p, const Geometry& geometry, int enough) {
  constexpr int kLanes = 32, kWords = 4;
  const bool planes = is_read_by_planes(geometry.source);
  // In 32 bits no distance of planes' rows is better than others: see lanes_of_line.
  if ((planes && geometry.element == 4) || is_beyond_any_block(p, p.row_pitch)) return 0;
  const int per_word = 4 / geometry.element, channels = planes ? p.all_channels : 1;
  const int line = p.columns.image_size * p.all_channels / channels, period = p.columns.period.divisor();
  const int chunks = ceil_div(line + geometry.chunk - 1, geometry.chunk), words = ceil_div(line, per_word);
  const int origin = p.columns.origin * p.all_channels / channels;
  const int before = (origin % geometry.chunk + geometry.chunk) % geometry.chunk, pitch = p.row_pitch / 4;
  // The word that an item's lane writes in a step; -1 where it writes none.
  const auto word_of = [&](int item, int step) {
    const int line_number = item / chunks, chunk = item % chunks;
    if (!planes) {
      const int first = chunk * kWords - before / per_word, bank = line_number * pitch + first;
      const int word = (step + ((bank >> 5) - bank)) & 3;
      return first + word < 0 || first + word >= words ? -1 : bank + word;
    }
    const int y = line_number / channels, turn = channels * (2 * (y & 1) - y * pitch);
    const int x = chunk * geometry.chunk - before + ((step / per_word + turn) & 3) * per_word + step % per_word;
    if (x < 0 || x >= line) return -1;
    return y * pitch + (x * p.column_pitch + x / period * p.column_gap + line_number % channels * geometry.element) / 4;
  };
  // A few warps stand for all, whose rows lie alike.
  const int items = std::min(p.rows.image_size * channels * chunks, 8 * kLanes);
  // That wrote a word: lanes that write the halves of one share it.
  std::vector<int> last_request(p.rows.image_size * pitch);
  int request = 0, conflicts = 0;
  for (int first = 0; first < items && conflicts < enough; first += kLanes) {
    for (int step = 0; step < kWords * (planes ? per_word : 1); ++step) {
      std::array<int, kBanks> stores{};
      ++request;
      for (int i = first; i < std::min(items, first + kLanes); ++i) {
        const int word = word_of(i, step);
        if (word < 0 || last_request[word] == request) continue;
        last_request[word] = request;
        ++stores[word % kBanks];
      }
      conflicts += std::max(*std::max_element(stores.begin(), stores.end()) - 1, 0);
    }
  }
  return conflicts;
}

// Words in an order, and pixels and rows in places, that are read without bank conflicts; of those that are found, the
// ones that leave the least between pixels, then those whose rows are written with the fewest conflicts, then that
// leave the least between rows. most_words: holes included. False where none is found.
inline bool order_words(Parameters& p, const Geometry& geometry, const WordReads& reads, int most_words) {
  constexpr int kMostGap = 2;
  const int per_word = 4 / geometry.element, row_words = static_cast<int>(p.inner.divisor()) / per_word;
  const int period = static_cast<int>(p.columns.period.divisor());
  if (int64_t{p.taps_down} * row_words > kMostOrderedWords || is_beyond_any_block(p, row_bytes(p))) return false;
  std::vector<Word> words(p.taps_down * row_words);
  for (int gap = 0; gap <= kMostGap; ++gap) {
    p.column_gap = 4 * gap;
    const int least_pitch = round_to(row_bytes(p), 4);
    std::vector<std::vector<Word>> best;
    int best_pitch = 0, least_conflicts = INT32_MAX;
    for (int more = 0; more < kBanks && least_conflicts > 0; ++more) {
      p.row_pitch = least_pitch + 4 * more;
      const int conflicts = conflicts_of_staging(p, geometry, least_conflicts);
      if (conflicts >= least_conflicts) continue;
      for (int i = 0; i < static_cast<int>(words.size()); ++i) {
        const int row = i / row_words, element = i % row_words * per_word;
        const int x = element / geometry.channel_pitch * p.dilation_columns;
        const int place = row * p.dilation_rows * p.row_pitch + x * p.column_pitch + x / period * p.column_gap +
                          element % geometry.channel_pitch * geometry.element;
        words[i] = {i, row, i % row_words, place / 4};
      }
      auto groups = conflict_free_groups(words, reads, (period * p.column_pitch + p.column_gap) / 4,
                                         std::min(most_words, kMostOrderedWords));
      if (groups.empty()) continue;
      best = std::move(groups);
      best_pitch = p.row_pitch;
      least_conflicts = conflicts;
    }
    if (best.empty()) continue;
    p.row_pitch = best_pitch;
    p.word_log2 = per_word == 2 ? 1 : 0;
    std::fill(std::begin(p.word_order), std::end(p.word_order), kNoWord);
    p.ordered_words = static_cast<int>(best.size()) * reads.words;
    for (size_t i = 0; i < best.size(); ++i) {
      for (size_t j = 0; j < best[i].size(); ++j) {
        p.word_order[i * reads.words + j] = static_cast<uint16_t>(best[i][j].number);
      }
    }
    constexpr int kWordsOfStep = 8;
    set_steps(p, geometry, ceil_div(p.ordered_words, kWordsOfStep));
    return true;
  }
  return false;
}

// Of the table of lines, and of places in them: by words.
inline int64_t lines_bytes(const Parameters& p, const Operand& source) {
  const int64_t lines = int64_t{p.rows.image_size} * (is_read_by_planes(source) ? p.all_channels : 1);
  return lines * static_cast<int>(sizeof(ImagePlace)) + int64_t{2} * p.columns.image_size * p.all_channels;
}

// Shared memory: `first_bytes` of something else, a table, the image.
inline void lay_out_image(Parameters& p, const Geometry& geometry, int first_bytes, int table_bytes) {
  p.table_at = round_to(first_bytes, 16);
  p.places_at = round_to(p.table_at + table_bytes, 16);
  const int64_t places = geometry.by_words ? lines_bytes(p, geometry.source) : places_bytes(p.rows, p.columns);
  p.image_at = round_to(p.places_at + places, 16);
  p.zero_at = round_to(p.image_at + int64_t{p.rows.image_size} * p.row_pitch, 16);
  p.staging_at = p.zero_at + 16;
}

// By words, places in a row of the image are told in 16 bits.
inline std::string why_no_places(const Geometry& geometry, const Parameters& p) {
  constexpr int kMost = 1 << 16;
  if (!geometry.by_words || p.row_pitch <= kMost) return "";
  return "rows of a tile's image have " + std::to_string(p.row_pitch) + " bytes; accepted are up to " +
         std::to_string(kMost);
}

// Weights of 1 to 4 channels, and x that the staging by words can read.
inline std::string why_not_stem(const ConvProblem& problem) {
  constexpr int kMostStemChannels = 4;
  const std::string reason = why_not_any(problem);
  if (!reason.empty()) return reason;
  const int64_t channels = problem.x.sizes[1];
  if (problem.groups != 1) return "grouped: this kernel is for first layers";
  if (channels > kMostStemChannels) {
    return std::to_string(channels) + " input channels; accepted are 1 to " + std::to_string(kMostStemChannels);
  }
  if (!has_dense_pixels(problem.x)) return "x is neither channels-last nor NCHW: rows of it have gaps";
  return "";
}

// Chunks of a line that lanes take: in 32 bits whole eights where that makes fewer passes through the banks, because
// eight lanes of one line fill an eighth of the banks' words four times whatever lies between the lines.
inline int lanes_of_line(const Parameters& p, const Geometry& geometry, int chunks) {
  const int eights = round_to(chunks, 8);
  if (geometry.element != 4) return chunks;
  if (p.planes) return p.all_channels % 2 == 1 && p.column_gap == 0 ? eights : chunks;
  if (!p.rows_are_lines) return chunks;
  // As many stores as conflicts_of_staging looks at.
  const int64_t items = std::min(int64_t{p.rows.image_size} * chunks, int64_t{8} * kBanks);
  const int64_t stores = 4 * ceil_div(items, kBanks);
  const int64_t conflicts = conflicts_of_staging(p, geometry, INT32_MAX);
  return (stores + conflicts) * chunks > stores * eights ? eights : chunks;
}

// Where the pixels lie that are staged by words; after lay_out_image.
inline void set_lines(Parameters& p, const Geometry& geometry) {
  const Operand& source = geometry.source;
  set_strides(p, source);
  p.planes = is_read_by_planes(source);
  // A single column has a stride that means nothing, and the kernel counts columns to the left of it.
  if (source.sizes[3] == 1) p.source_column = p.planes ? 1 : p.all_channels;
  const int64_t line = int64_t{p.columns.image_size} * (p.planes ? 1 : p.all_channels);
  p.lines_channels = FastDivider<uint32_t>(p.planes ? p.all_channels : 1);
  p.rows_are_lines = !p.planes && p.column_gap == 0 && p.column_pitch == p.all_channels * geometry.element;
  const int chunks = static_cast<int>(ceil_div(line + geometry.chunk - 1, geometry.chunk));
  p.line_chunks = FastDivider<uint32_t>(lanes_of_line(p, geometry, chunks));
}

// To stage an image, where 16 bytes of each lane of a warp take as many as these; by chunks, in NCHW, by_planes.
inline double staging_instructions(const Parameters& p, const Geometry& geometry, double each, double by_planes) {
  if (!geometry.by_words) return chunk_instructions(p, geometry.element, each, by_planes);
  const double chunks = double(p.rows.image_size) * p.lines_channels.divisor() * p.line_chunks.divisor();
  return each * std::ceil(chunks / 32);
}

// Passes through the banks to stage an image, as the emulator counts them for 7x7 stems: 75 bytes a pass where rows
// are written by words, 50 where those of planes are handed out element by element, 20 where that takes a table.
inline double image_passes(const Parameters& p, const Geometry& geometry) {
  const double bytes = double(p.rows.image_size) * p.row_pitch;
  if (!geometry.by_words) return chunk_passes(p);
  return bytes / (p.rows_are_lines ? 75 : p.planes && p.column_gap == 0 ? 50 : 20);
}

}  // namespace fastconv::staged
