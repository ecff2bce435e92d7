#include "launch/patch_conv.h"

#include <optional>

#include "launch/mma_conv.h"

namespace fastconv {
namespace patch {
namespace {

// The elements of a patch that are neighbours in memory become the channels, what is left of the filter its taps:
//
//   channels-last  a filter row of a patch, S * C elements: R x 1 taps of S * C channels
//   NCHW           S elements of one channel: R x C taps of S channels, the tap columns a plane apart
//
// The same memory seen with other sizes and strides. In NCHW the columns of the view overlap, which reading allows and
// dgrad's writing does not.
struct View {
  std::string reason;  // why there is none
  ConvProblem problem;
};

View view_of(const ConvProblem& problem) {
  View view{"", problem};
  const auto& [x_sizes, x_strides] = problem.x;
  const auto& [w_sizes, w_strides] = problem.w;
  const int64_t filters = w_sizes[0], channels = w_sizes[1], taps_down = w_sizes[2], taps_across = w_sizes[3];
  const int64_t chunk = 16 / size_of(problem.dtype);
  const auto no = [&](const char* reason) {
    view.reason = reason;
    return view;
  };
  if (problem.groups != 1) return no("grouped: patches have all channels");
  if (problem.stride[0] != taps_down || problem.stride[1] != taps_across || taps_across == 1) {
    return no("the stride is not the size of the filter: not patches");
  }
  for (int padding : problem.padding) {
    if (padding != 0) return no("padding: patches have none");
  }
  if (problem.dilation[0] != 1 || problem.dilation[1] != 1) return no("dilation: patches have none");
  if (x_sizes[2] != problem.y.sizes[2] * taps_down || x_sizes[3] != problem.y.sizes[3] * taps_across) {
    return no("the filter does not divide x: some pixels are in no patch");
  }
  if (problem.pass == ConvPass::dgrad && problem.has_bias) return no("a bias: it would repeat within a patch");
  Operand &x = view.problem.x, &w = view.problem.w;
  const int64_t patches = problem.y.sizes[3];
  const bool channels_last = (x_strides[1] == 1 || channels == 1) && x_strides[3] == channels;
  if (channels_last) {
    const bool rows_touch = (w_strides[1] == 1 || channels == 1) && w_strides[3] == channels;
    if (!rows_touch) return no("x is channels-last and w is not: a filter row of a patch is not one piece of w");
    if (taps_across * channels % chunk != 0) return no("a filter row of a patch is not whole chunks of 16 bytes");
    x.sizes = {x_sizes[0], taps_across * channels, x_sizes[2], patches};
    x.strides = {x_strides[0], 1, x_strides[2], taps_across * channels};
    w.sizes = {filters, taps_across * channels, taps_down, 1};
    w.strides = {w_strides[0], 1, w_strides[2], w_strides[2]};
    view.problem.stride = {static_cast<int>(taps_down), 1};
    return view;
  }
  if (x_strides[3] != 1) return no("x is neither channels-last nor NCHW: rows of it have gaps");
  if (problem.pass == ConvPass::dgrad) return no("dx is NCHW: its view as patches would overlap");
  if (taps_across % chunk != 0) return no("a filter row of a patch in one channel is not whole chunks of 16 bytes");
  if (x_strides[1] % taps_across != 0) return no("planes are not whole patches apart");
  const int64_t plane = x_strides[1] / taps_across;
  if (plane > INT32_MAX / 8) return no("planes are too far apart");
  x.sizes = {x_sizes[0], taps_across, x_sizes[2], patches + (channels - 1) * plane};
  x.strides = {x_strides[0], 1, x_strides[2], taps_across};
  w.sizes = {filters, taps_across, taps_down, channels};
  w.strides = {w_strides[0], w_strides[3], w_strides[2], w_strides[1]};
  view.problem.stride = {static_cast<int>(taps_down), 1};
  view.problem.dilation = {1, static_cast<int>(plane)};
  return view;
}

const KernelFamily<ConvProblem>& general(const ConvProblem& problem) {
  return problem.pass == ConvPass::fprop ? mma_fprop : problem.pass == ConvPass::dgrad ? mma_dgrad : mma_wgrad;
}

// The same product with dense channels-last operands: overlapping views count elements several times, and no
// prediction should.
ConvProblem dense_twin(const ConvProblem& problem) {
  ConvProblem dense = problem;
  for (Operand* operand : {&dense.x, &dense.w, &dense.y}) {
    const auto& sizes = operand->sizes;
    operand->strides = {sizes[1] * sizes[2] * sizes[3], 1, sizes[3] * sizes[1], sizes[1]};
  }
  return view_of(dense).problem;
}

std::vector<std::string> configs(const ConvProblem& problem) {
  if (!view_of(problem).reason.empty()) return {""};
  return general(problem).configs(dense_twin(problem));
}

std::string can_implement(const ConvProblem& problem, const std::string& config) {
  const View view = view_of(problem);
  if (!view.reason.empty()) return view.reason;
  return general(problem).can_implement(view.problem, config);
}

Prepared prepare(const ConvProblem& problem, const std::string& config) {
  Prepared prepared = general(problem).prepare(view_of(problem).problem, config);
  const Description twin = general(problem).prepare(dense_twin(problem), config).description;
  prepared.description.predicted_seconds = twin.predicted_seconds;
  prepared.description.flops = problem.flops();
  prepared.description.compulsory_bytes = problem.compulsory_bytes();
  return prepared;
}

}  // namespace
}  // namespace patch

const KernelFamily<ConvProblem> patch_fprop{
    "patch_fprop", "a stride as large as the filter: patches as rows of whole chunks for mma_fprop, without a copy",
    patch::configs, patch::can_implement, patch::prepare};
const KernelFamily<ConvProblem> patch_dgrad{
    "patch_dgrad", "a stride as large as the filter: patches as rows of whole chunks for mma_dgrad, without a copy",
    patch::configs, patch::can_implement, patch::prepare};
const KernelFamily<ConvProblem> patch_wgrad{
    "patch_wgrad", "a stride as large as the filter: patches as rows of whole chunks for mma_wgrad, without a copy",
    patch::configs, patch::can_implement, patch::prepare};

}  // namespace fastconv
