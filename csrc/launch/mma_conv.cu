#include "launch/mma_conv.h"

#include "kernels/mma_conv/reduce.cuh"
#include "kernels/mma_conv/repack.cuh"

namespace fastconv::mma {

std::string why_not_any(const ConvProblem& problem) {
  if (problem.dtype == DataType::float64) return "tensor cores have no float64 convolution here";
  if (problem.target.capability < 80) return "needs compute capability 8.0 or later";
  if (problem.x.count() == 0 || problem.w.count() == 0 || problem.y.count() == 0) return "an operand is empty";
  const int64_t chunk = 16 / size_of(problem.dtype);
  if (problem.groups > 1) {
    if (problem.pass != ConvPass::dgrad && problem.w.sizes[1] % chunk != 0) {
      return "groups of " + std::to_string(problem.w.sizes[1]) + " input channels; accepted are multiples of " +
             std::to_string(chunk);
    }
    if (problem.pass != ConvPass::fprop && problem.w.sizes[0] / problem.groups % chunk != 0) {
      return "groups of " + std::to_string(problem.w.sizes[0] / problem.groups) +
             " output channels; accepted are multiples of " + std::to_string(chunk);
    }
  }
  for (const Operand* operand : {&problem.x, &problem.y}) {
    if (operand->sizes[0] * operand->sizes[2] * operand->sizes[3] >= int64_t{1} << 30) return "2^30 pixels or more";
  }
  // Positions in the padded x are an int; they may go beyond it by a filter, and by a tile.
  constexpr int64_t kMostPositions = INT32_MAX - 65536;
  for (int i = 0; i < 2; ++i) {
    const int64_t padded = problem.x.sizes[2 + i] + problem.padding[2 * i] + problem.padding[2 * i + 1];
    const int64_t span = problem.dilation[i] * (problem.w.sizes[2 + i] - 1);
    if (padded + span > kMostPositions) {
      return std::string("x with its padding has ") + std::to_string(padded) + (i == 0 ? " rows" : " columns") +
             " and the filter spans " + std::to_string(span + 1) + "; accepted are " + std::to_string(kMostPositions) +
             " together";
    }
  }
  return "";
}

void launch_reduce(DataType dtype, const ReduceParameters& parameters, const void* partial, int64_t partial_bytes,
                   const Operand& output, const LaunchArguments& arguments, const Operand* residual) {
  const int element = size_of(dtype);
  const int64_t items = parameters.items + (parameters.partial_bias != nullptr ? parameters.bias_count : 0);
  const LaunchShape shape{parameters.is_folded ? "fold_splits" : "reduce_splits",
                          static_cast<unsigned>(divide_up(items, kReduceThreads)), kReduceThreads, 0, kReduceThreads};
  const int64_t columns = output.sizes[1];
  const auto launch = [&](auto plain, auto folded) {
    launch_kernel(shape, parameters.is_folded ? folded : plain, parameters,
                  {{"partial", partial, partial_bytes},
                   {"output", parameters.out.output, bytes_of(output, element), true},
                   {"bias", parameters.out.bias, columns * element},
                   {"residual", parameters.out.residual, residual != nullptr ? bytes_of(*residual, element) : 0},
                   {"bias_gradient", parameters.bias_gradient, parameters.bias_count * element, true}},
                  arguments.stream);
  };
  if (dtype == DataType::float16) return launch(&reduce_splits<Half>, &fold_splits<Half>);
  if (dtype == DataType::bfloat16) return launch(&reduce_splits<BFloat16>, &fold_splits<BFloat16>);
  launch(&reduce_splits<float>, &fold_splits<float>);
}

void launch_repack(DataType dtype, const RepackParameters& parameters, int64_t source_bytes, int64_t destination_bytes,
                   const Stream& stream) {
  const LaunchShape shape{"repack_weights", static_cast<unsigned>(divide_up(parameters.items, kRepackThreads)),
                          kRepackThreads, 0, kRepackThreads};
  const auto launch = [&](auto kernel) {
    launch_kernel(
        shape, kernel, parameters,
        {{"w", parameters.source, source_bytes}, {"packed_weights", parameters.destination, destination_bytes, true}},
        stream);
  };
  size_of(dtype) == 2 ? launch(repack_weights<uint16_t>) : launch(repack_weights<uint32_t>);
}

void launch_conversion(const ConvProblem& problem, const Operand& operand, const void* source, void* destination,
                       const Stream& stream) {
  const int element = size_of(problem.dtype);
  const int64_t bytes = channels_last_bytes(operand, problem.groups, element);
  if (element == 2) {
    launch_to_channels_last<uint16_t>(operand, problem.groups, source, destination, bytes, stream);
  } else {
    launch_to_channels_last<uint32_t>(operand, problem.groups, source, destination, bytes, stream);
  }
}

}  // namespace fastconv::mma
