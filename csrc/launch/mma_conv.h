// The host's side of kernels/mma_conv: the families mma_fprop, mma_dgrad and mma_wgrad, for sm_80 and later.
#pragma once

#include <optional>

#include "launch/mma_cost.h"
#include "launch/mma_operands.h"
#include "launch/registry.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> mma_fprop;
extern const KernelFamily<ConvProblem> mma_dgrad;
extern const KernelFamily<ConvProblem> mma_wgrad;

namespace mma {

inline Precision precision_of(const ConvProblem& problem) {
  if (problem.dtype != DataType::float32) return Precision::native;
  return problem.allow_tf32 ? Precision::tf32 : Precision::split_tf32;
}

// A configuration prints itself as its tile, and its splits where the sum is split: "128x128x32_s4_w4_k3".
struct Config {
  int tile;  // index into the kernels
  int splits;
};

std::string config_name(const Tile& tile, int splits);

template <class Parameters>
std::optional<Config> parse_config(const std::vector<Kernel<Parameters>>& kernels, const std::string& text) {
  for (size_t i = 0; i < kernels.size(); ++i) {
    const std::string name = kernels[i].tile.name();
    if (text == name) return Config{static_cast<int>(i), 1};
    if (text.rfind(name + "_k", 0) != 0) continue;
    const std::string digits = text.substr(name.size() + 2);
    if (digits.empty() || digits.size() > 4 || digits.find_first_not_of("0123456789") != std::string::npos) continue;
    const int splits = std::stoi(digits);
    if (splits > 1) return Config{static_cast<int>(i), splits};
  }
  return std::nullopt;
}

// Worth a measurement: the whole sum, halves, and what is predicted to be best.
inline std::vector<int> split_options(int best, int most) {
  std::vector<int> options{1};
  if (most >= 2) options.push_back(2);
  if (best > 2) options.push_back(best);
  return options;
}

// Why no tensor-core kernel of any pass takes the problem; empty where they may.
std::string why_not_any(const ConvProblem& problem);

// What all families do with a candidate, once they know its work.
struct Candidate {
  std::string name;
  double rank;
};
std::vector<std::string> names_by_rank(std::vector<Candidate> candidates);

// Adds the splits and finishes the outputs. outputs: what the columns and rows of `parameters` are stored in.
void launch_reduce(DataType dtype, const ReduceParameters& parameters, const void* partial, int64_t partial_bytes,
                   const Operand& output, const LaunchArguments& arguments, const Operand* residual);

void launch_repack(DataType dtype, const RepackParameters& parameters, int64_t source_bytes, int64_t destination_bytes,
                   const Stream& stream);

void launch_conversion(const ConvProblem& problem, const Operand& operand, const void* source, void* destination,
                       const Stream& stream);

template <class Parameters>
const KernelSet<Parameters>& kernels_of(const ConvProblem& problem) {
  const auto get = [](auto element, auto precision) -> const KernelSet<Parameters>& {
    using Element = decltype(element);
    if constexpr (std::is_same<Parameters, GatherParameters>::value) {
      return gather_kernels<Element, precision()>();
    } else {
      return wgrad_kernels<Element, precision()>();
    }
  };
  using Native = std::integral_constant<Precision, Precision::native>;
  if (problem.dtype == DataType::float16) return get(Half{}, Native());
  if (problem.dtype == DataType::bfloat16) return get(BFloat16{}, Native());
  if (problem.allow_tf32) return get(float{}, std::integral_constant<Precision, Precision::tf32>());
  return get(float{}, std::integral_constant<Precision, Precision::split_tf32>());
}

}  // namespace mma
}  // namespace fastconv
