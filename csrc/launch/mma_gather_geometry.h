// A convolution in the words of the gather kernel, without the data: what is read, what is written, how they hang
// together.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>

#include "launch/mma_operands.h"

namespace fastconv::mma {

// One dimension of the convolution, as the gather sees it.
struct AxisPlan {
  Axis axis{};
  int phases = 0;                                           // those that have outputs
  std::array<uint8_t, kMaxTaps> place{}, taps{}, before{};  // of each tap: see RepackParameters
};

inline AxisPlan fprop_axis(int64_t x_size, int64_t y_size, int64_t taps, int stride, int padding, int dilation) {
  AxisPlan plan;
  plan.phases = 1;
  plan.axis.output_step = 1;
  plan.axis.source_step = stride;
  plan.axis.tap_step = dilation;
  plan.axis.source_size = static_cast<int>(x_size);
  const auto count = static_cast<uint32_t>(taps);
  plan.axis.phases[0] = {FastDivider<uint32_t>(static_cast<uint32_t>(y_size)),
                         FastDivider<uint32_t>(count),
                         0,
                         -padding,
                         static_cast<int>(taps),
                         0};
  for (int tap = 0; tap < taps; ++tap) {
    plan.place[tap] = static_cast<uint8_t>(tap);
    plan.taps[tap] = static_cast<uint8_t>(taps);
  }
  return plan;
}

// Position h of dx takes tap r from p = (h + padding - r * dilation) / stride where that is whole, so positions that
// are equal modulo the stride have the same taps, each stride / gcd(stride, dilation) after the last.
inline AxisPlan dgrad_axis(int64_t x_size, int64_t y_size, int64_t taps, int stride, int padding, int dilation) {
  AxisPlan plan;
  const int common = std::gcd(stride, dilation), step = stride / common;
  plan.axis.output_step = stride;
  plan.axis.source_step = 1;
  plan.axis.tap_step = -(dilation / common);
  plan.axis.source_size = static_cast<int>(y_size);
  int before = 0;
  for (int phase = 0; phase < stride; ++phase) {
    const int tried = std::min(step, static_cast<int>(taps));
    int first = 0;
    while (first < tried && (phase + padding - first * dilation) % stride != 0) ++first;
    const int count = first < tried ? (static_cast<int>(taps) - 1 - first) / step + 1 : 0;
    for (int i = 0; i < count; ++i) {
      plan.place[first + i * step] = static_cast<uint8_t>(i);
      plan.taps[first + i * step] = static_cast<uint8_t>(count);
      plan.before[first + i * step] = static_cast<uint8_t>(before);
    }
    if (phase < x_size) {
      const int64_t of_phase = (x_size - phase + stride - 1) / stride;
      const int origin = count > 0 ? (phase + padding - first * dilation) / stride : 0;
      plan.axis.phases[plan.phases++] = {FastDivider<uint32_t>(static_cast<uint32_t>(of_phase)),
                                         FastDivider<uint32_t>(static_cast<uint32_t>(count)),
                                         phase,
                                         origin,
                                         count,
                                         before};
    }
    before += count;
  }
  return plan;
}

// The problem in the words of the kernel: what is read, what is written, and how they hang together.
struct Geometry {
  bool transposed;  // dgrad
  // dgrad where padding repeats elements of x: the product is the gradient by the padded x, in partial sums, and an
  // element is added up from the places at which it stands there.
  bool is_folded;
  Operand source, output;                    // output: of the product
  int64_t source_channels, output_channels;  // of a group
  AxisPlan rows, columns;
  int piece_bytes;        // of the source as it is; 0: it is converted
  bool weights_in_place;  // channels-last, whole chunks
  int64_t channel_pitch, packed_bytes, converted_bytes, partial_pitch;
  int64_t most_workspace_bytes;
  int element;

  explicit Geometry(const ConvProblem& problem)
      : transposed(problem.pass == ConvPass::dgrad),
        is_folded(transposed && !problem.is_zero_padded()),
        source(transposed ? problem.y : problem.x),
        output(transposed ? problem.x : problem.y),
        source_channels(source.sizes[1] / problem.groups),
        output_channels(output.sizes[1] / problem.groups),
        most_workspace_bytes(problem.most_workspace_bytes),
        element(size_of(problem.dtype)) {
    const auto axis = [&](int i) {
      const int dimension = 2 + i, low = problem.padding[2 * i], high = problem.padding[2 * i + 1];
      if (is_folded) output.sizes[dimension] += low + high;
      return (transposed ? dgrad_axis : fprop_axis)(transposed ? output.sizes[dimension] : problem.x.sizes[dimension],
                                                    problem.y.sizes[dimension], problem.w.sizes[dimension],
                                                    problem.stride[i], is_folded ? 0 : low, problem.dilation[i]);
    };
    rows = axis(0);
    columns = axis(1);
    const int64_t chunk = 16 / element, taps = problem.w.sizes[2] * problem.w.sizes[3];
    piece_bytes = piece_bytes_of(source, problem.groups, element);
    channel_pitch = round_up(source_channels, chunk);
    const auto& [sizes, strides] = problem.w;
    const bool channels_last = (strides[1] == 1 || sizes[1] == 1) && (strides[3] == sizes[1] || sizes[3] == 1) &&
                               (strides[2] == sizes[3] * sizes[1] || sizes[2] == 1) &&
                               (strides[0] == taps * sizes[1] || sizes[0] == 1);
    weights_in_place = !transposed && channels_last && source_channels % chunk == 0;
    packed_bytes = output.sizes[1] * taps * channel_pitch * element;
    converted_bytes = piece_bytes == 0 ? channels_last_bytes(source, problem.groups, element) : 0;
    partial_pitch = problem.groups * round_up(output_channels, chunk);
  }

  int64_t pixels() const { return output.sizes[0] * output.sizes[2] * output.sizes[3]; }
  // Whether the sums are stored apart, and added up by a second kernel.
  bool has_partial_sums(int splits) const { return splits > 1 || is_folded; }
  int64_t partial_bytes(int splits) const {
    return has_partial_sums(splits) ? 4 * splits * pixels() * partial_pitch : 0;
  }
  bool is_narrow() const { return piece_bytes != 0 && piece_bytes < 16; }
  int copy_bytes() const { return piece_bytes == 0 ? 16 : piece_bytes; }
  int64_t workspace_bytes(int splits) const {
    return Workspace::size_of({packed_bytes, converted_bytes, partial_bytes(splits)});
  }
  int most_splits() const {
    const int64_t left = most_workspace_bytes - Workspace::size_of({packed_bytes, converted_bytes});
    return static_cast<int>(std::clamp<int64_t>(left / (4 * pixels() * partial_pitch), 1, 128));
  }
};

// How the weights are put in the order of the phases and their taps.
inline RepackParameters repack_for(const ConvProblem& problem, const Geometry& geometry) {
  RepackParameters repack{};
  const auto& [sizes, strides] = problem.w;
  const int64_t filters = sizes[0] / problem.groups, chunks = geometry.channel_pitch * geometry.element / 16;
  repack.output_stride = geometry.transposed ? strides[1] : strides[0];
  repack.input_stride = geometry.transposed ? strides[0] : strides[1];
  repack.group_stride = filters * strides[0];
  repack.row_stride = strides[2];
  repack.column_stride = strides[3];
  repack.inputs = static_cast<int>(geometry.source_channels);
  repack.input_pitch = static_cast<int>(geometry.channel_pitch);
  repack.all_outputs = static_cast<int>(geometry.output.sizes[1]);
  repack.taps_across = static_cast<int>(sizes[3]);
  repack.items = repack.all_outputs * chunks * sizes[2] * sizes[3];
  repack.outputs_fastest = repack.output_stride == 1;
  repack.outputs = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.output_channels));
  repack.taps_divider = FastDivider<uint32_t>(static_cast<uint32_t>(sizes[2] * sizes[3]));
  repack.taps_across_divider = FastDivider<uint32_t>(static_cast<uint32_t>(sizes[3]));
  repack.chunks_divider = FastDivider<uint32_t>(static_cast<uint32_t>(chunks));
  repack.all_outputs_divider = FastDivider<uint32_t>(static_cast<uint32_t>(repack.all_outputs));
  for (int tap = 0; tap < kMaxTaps; ++tap) {
    repack.row_place[tap] = geometry.rows.place[tap];
    repack.row_taps[tap] = geometry.rows.taps[tap];
    repack.rows_before[tap] = geometry.rows.before[tap];
    repack.column_place[tap] = geometry.columns.place[tap];
    repack.column_taps[tap] = geometry.columns.taps[tap];
    repack.columns_before[tap] = geometry.columns.before[tap];
  }
  return repack;
}

}  // namespace fastconv::mma
