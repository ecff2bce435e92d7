// How the outputs of a pool whose channel is innermost are handed out: a thread has 16 bytes of channels of a group of
// neighbouring columns, and walks down a strip of rows.
#pragma once

#include <algorithm>

#include "kernels/max_pool_channels.cuh"
#include "launch/max_pool_moving.h"
#include "launch/tiling.h"

namespace fastconv {

// Rows of a strip, at most: long strips read the rows between them once, short ones make more threads.
inline const NumberedConfigs& channel_strip_lengths() {
  static const NumberedConfigs lengths{{"rows8", 8}, {"rows2", 2}, {"rows28", 28}};
  return lengths;
}

struct ChannelStrips {
  int64_t vectors, groups, rows, strip, strips, items;

  // groups: of a row. rows: of an image, as threads take them.
  ChannelStrips(const PoolProblem& problem, int64_t groups, int64_t rows, int64_t longest)
      : vectors(problem.x.sizes[1] / vector_of(problem)),
        groups(groups),
        rows(rows),
        strip(ceil_div(rows, ceil_div(rows, std::min(rows, longest)))),
        strips(ceil_div(rows, strip)),
        items(vectors * groups * strips * problem.x.sizes[0]) {}

  int64_t blocks() const { return ceil_div(items, kChannelThreads); }

  std::string reason_against_items() const { return items >= int64_t{1} << 31 ? "2^31 threads or more" : ""; }

  void give_to(ChannelPoolParameters& parameters, const PoolProblem& problem) const {
    const auto strides_of = [](const Operand& operand) {
      return ChannelStrides{operand.strides[0], operand.strides[2], operand.strides[3]};
    };
    const auto divider = [](int64_t divisor) { return FastDivider<uint32_t>(static_cast<uint32_t>(divisor)); };
    const bool backward = is_backward(problem);
    parameters.input_strides = strides_of(backward ? problem.y : problem.x);
    parameters.output_strides = strides_of(backward ? problem.x : problem.y);
    parameters.offset_strides = strides_of(problem.offsets);
    parameters.height = static_cast<int>(problem.x.sizes[2]);
    parameters.width = static_cast<int>(problem.x.sizes[3]);
    parameters.output_height = static_cast<int>(problem.y.sizes[2]);
    parameters.output_width = static_cast<int>(problem.y.sizes[3]);
    parameters.rows = static_cast<int>(rows);
    parameters.strip = static_cast<int>(strip);
    parameters.items = static_cast<uint32_t>(items);
    parameters.vectors = divider(vectors);
    parameters.groups = divider(groups);
    parameters.strips = divider(strips);
  }
};

}  // namespace fastconv
