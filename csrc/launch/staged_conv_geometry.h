// A convolution in the words of the staged kernels, without the data: dimensions, units, and how the tile of an output
// and its image lie in shared memory.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "launch/mma_conv.h"
#include "launch/staged_conv.h"
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
  if (problem.pass == ConvPass::fprop) return {{y, 0, 1, stride, -padding, x, taps, dilation, 0, 1}};
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

}  // namespace fastconv::staged
