// The host's side of kernels/depthwise: the families depthwise_fprop, depthwise_dgrad and depthwise_wgrad.
#pragma once

#include <string>
#include <vector>

#include "kernels/depthwise/geometry.h"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> depthwise_fprop;
extern const KernelFamily<ConvProblem> depthwise_dgrad;
extern const KernelFamily<ConvProblem> depthwise_wgrad;

namespace depthwise {

// A pass as the kernels see it: from `source` to `output`; wgrad has the roles of fprop.
struct Roles {
  const Operand* source;
  const Operand* output;
  bool transposed;  // dgrad with a stride: kernels/depthwise/geometry.h
  bool reversed;    // dgrad without
};

Roles roles_of(const ConvProblem& problem);
Axis axis_of(const ConvProblem& problem, int axis);
Weights weights_of(const ConvProblem& problem);

// Why no depthwise kernel of any layout takes the problem; empty where some may.
std::string why_not_any(const ConvProblem& problem);
// Rows without gaps inside planes, whatever lies between planes: NCHW and its slices of batches and channels.
bool has_dense_planes(const Operand& operand);
// Whether all planes follow each other without gaps.
bool is_dense(const Operand& operand);

// A configuration.
struct Way {
  const char* name;
  std::string (*why_not)(const ConvProblem&);
  Prepared (*prepare)(const ConvProblem&);
};
using Ways = std::vector<const Way*>;
std::vector<std::string> names_of(const Ways& ways);
const Way& way_named(const Ways& ways, const std::string& config);

// A family of which each way is a configuration.
template <const Ways& (*ways)()>
constexpr KernelFamily<ConvProblem> family_of(const char* name, const char* description) {
  const auto can_implement = [](const ConvProblem& problem, const std::string& config) {
    const std::string reason = why_not_any(problem);
    return reason.empty() ? way_named(ways(), config).why_not(problem) : reason;
  };
  return {
      name, description, [](const ConvProblem&) { return names_of(ways()); }, can_implement,
      [](const ConvProblem& problem, const std::string& config) { return way_named(ways(), config).prepare(problem); }};
}

extern const Way planes_way;
extern const Way band_way;  // on tensor cores
// channels_last through NCHW, band's and planes'; wgrad too.
extern const Way turned_ways[2];
// fprop and dgrad; with slabs of 8, 4 and 2 chunks of 16 bytes of channels.
extern const Way channels_last_ways[3];

// Fills in what all passes describe alike and predicts the time. bytes: that are asked for.
void describe(Description& description, const ConvProblem& problem, double multiply_adds, double efficiency,
              double bytes);

// Clocks that a multiprocessor's tensor cores take for a product of 16 x 8 x 16, through mma.sync.
double clocks_of_product(const Target& target);

// What clocks of a multiprocessor are in multiply-adds outside of tensor cores, of which `describe` asks how many.
double in_multiply_adds(double clocks, const ConvProblem& problem);

}  // namespace depthwise
}  // namespace fastconv
