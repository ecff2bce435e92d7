// The host's side of kernels/mma_conv: the families mma_fprop, mma_dgrad and mma_wgrad, for sm_80 and later.
#pragma once

#include "launch/mma_candidates.h"
#include "launch/mma_operands.h"

namespace fastconv {

extern const KernelFamily<ConvProblem> mma_fprop;
extern const KernelFamily<ConvProblem> mma_dgrad;
extern const KernelFamily<ConvProblem> mma_wgrad;

namespace mma {

inline Precision precision_of(const ConvProblem& problem) {
  if (problem.dtype != DataType::float32) return Precision::native;
  return problem.allow_tf32 ? Precision::tf32 : Precision::split_tf32;
}

// Why no tensor-core kernel of any pass takes the problem; empty where they may.
std::string why_not_any(const ConvProblem& problem);

// Adds the splits and finishes the outputs. outputs: what the columns and rows of `parameters` are stored in.
void launch_reduce(DataType dtype, const ReduceParameters& parameters, const void* partial, int64_t partial_bytes,
                   const Operand& output, const LaunchArguments& arguments, const Operand* residual);

void launch_repack(DataType dtype, const RepackParameters& parameters, int64_t source_bytes, int64_t destination_bytes,
                   const Stream& stream);

void launch_conversion(const ConvProblem& problem, const Operand& operand, const void* source, void* destination,
                       const Stream& stream);

// get(element, precision) of the types that the problem is computed in: Half{} and a Precision as a type, for example.
template <class Get>
decltype(auto) for_types_of(const ConvProblem& problem, const Get& get) {
  using Native = std::integral_constant<Precision, Precision::native>;
  if (problem.dtype == DataType::float16) return get(Half{}, Native());
  if (problem.dtype == DataType::bfloat16) return get(BFloat16{}, Native());
  if (problem.allow_tf32) return get(float{}, std::integral_constant<Precision, Precision::tf32>());
  return get(float{}, std::integral_constant<Precision, Precision::split_tf32>());
}

template <class Parameters>
const KernelSet<Parameters>& kernels_of(const ConvProblem& problem) {
  return for_types_of(problem, [](auto element, auto precision) -> const KernelSet<Parameters>& {
    using Element = decltype(element);
    if constexpr (std::is_same<Parameters, GatherParameters>::value) {
      return gather_kernels<Element, precision()>();
    } else {
      return wgrad_kernels<Element, precision()>();
    }
  });
}

}  // namespace mma
}  // namespace fastconv
