#include "launch/depthwise.h"

#include "common/cost.h"
#include "common/multiply_add_rate.h"
#include "launch/mma_cost.h"
#include "launch/tiling.h"

namespace fastconv {
namespace depthwise {

Roles roles_of(const ConvProblem& problem) {
  if (problem.pass != ConvPass::dgrad) return {&problem.x, &problem.y, false, false};
  const bool transposed = problem.stride[0] > 1 || problem.stride[1] > 1;
  return {&problem.y, &problem.x, transposed, !transposed};
}

Axis axis_of(const ConvProblem& problem, int axis) {
  const Roles roles = roles_of(problem);
  Axis result;
  result.source = static_cast<int>(roles.source->sizes[2 + axis]);
  result.output = static_cast<int>(roles.output->sizes[2 + axis]);
  result.taps = static_cast<int>(problem.w.sizes[2 + axis]);
  result.stride = problem.stride[axis];
  result.dilation = problem.dilation[axis];
  result.offset = problem.padding[2 * axis];
  if (roles.reversed) result.offset = (result.taps - 1) * result.dilation - result.offset;
  result.strides = FastDivider<uint32_t>(result.stride);
  return result;
}

Weights weights_of(const ConvProblem& problem) {
  return {problem.w.strides[0], problem.w.strides[2], problem.w.strides[3]};
}

std::string why_not_any(const ConvProblem& problem) {
  if (problem.w.sizes[1] != 1) {
    return "groups of " + std::to_string(problem.w.sizes[1]) + " input channels: depthwise kernels take 1";
  }
  if (problem.dtype == DataType::float64) return "float64: depthwise kernels sum in float32";
  if (problem.x.count() == 0 || problem.y.count() == 0) return "an operand is empty";
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t reach = int64_t{problem.dilation[axis]} * (problem.w.sizes[2 + axis] - 1);
    const int64_t padded = problem.x.sizes[2 + axis] + problem.padding[2 * axis] + problem.padding[2 * axis + 1];
    if (padded + reach + problem.stride[axis] >= int64_t{1} << 28) return "2^28 padded rows or columns or more";
  }
  if (problem.x.sizes[0] * std::max(problem.x.sizes[1], problem.y.sizes[1]) >= int64_t{1} << 31) {
    return "2^31 planes or more";
  }
  return "";
}

bool has_dense_planes(const Operand& operand) {
  const auto& sizes = operand.sizes;
  const bool columns = operand.strides[3] == 1 || sizes[3] == 1;
  return columns && (operand.strides[2] == sizes[3] || sizes[2] == 1);
}

bool is_dense(const Operand& operand) {
  const auto& sizes = operand.sizes;
  const int64_t plane = sizes[2] * sizes[3];
  return has_dense_planes(operand) && (operand.strides[1] == plane || sizes[1] == 1) &&
         (operand.strides[0] == sizes[1] * plane || sizes[0] == 1);
}

void describe(Description& description, const ConvProblem& problem, double multiply_adds, double efficiency,
              double bytes) {
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  Work work;
  work.multiply_adds = multiply_adds;
  work.efficiency = efficiency;
  // Halos, and sums that blocks leave to each other, come out of the second-level cache: taken for twice as fast.
  const double compulsory = static_cast<double>(description.compulsory_bytes);
  work.bytes = compulsory + std::max(bytes - compulsory, 0.0) / 2;
  work.exposed = kExposedWithoutStages;
  // Many small blocks share a multiprocessor.
  work.blocks = description.blocks * static_cast<double>(description.threads) / 256;
  description.predicted_seconds = predict_seconds(work, problem.dtype, problem.target);
}

double clocks_of_product(const Target& target) {
  return 2.0 * 16 * 8 * 16 / mma::Machine::of(target).tensor_flops_per_clock;
}

double in_multiply_adds(double clocks, const ConvProblem& problem) {
  return clocks * multiply_adds_per_clock(problem.dtype, problem.target.capability);
}

std::vector<std::string> names_of(const Ways& ways) {
  std::vector<std::string> names;
  for (const Way* way : ways) names.push_back(way->name);
  return names;
}

const Way& way_named(const Ways& ways, const std::string& config) {
  for (const Way* way : ways) {
    if (config == way->name) return *way;
  }
  throw std::invalid_argument("config is '" + config + "', but must be one of the depthwise kernels'");
}

namespace {

const Ways& ways() {
  static const Ways all{
      &planes_way,     &band_way,      &channels_last_ways[0], &channels_last_ways[1], &channels_last_ways[2],
      &turned_ways[0], &turned_ways[1]};
  return all;
}

}  // namespace
}  // namespace depthwise

constexpr KernelFamily<ConvProblem> depthwise_fprop = depthwise::family_of<depthwise::ways>(
    "depthwise_fprop",
    "one filter a channel, or a few: input and output cross memory once, in 16-byte accesses; any filter, stride and "
    "dilation; bias, residual and activation in the epilogue");

constexpr KernelFamily<ConvProblem> depthwise_dgrad = depthwise::family_of<depthwise::ways>(
    "depthwise_dgrad",
    "gradient by input of a depthwise convolution, or a depthwise transposed convolution; bias and activation in the "
    "epilogue");

}  // namespace fastconv
