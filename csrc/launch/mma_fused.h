// The families mma_conv_max_pool and mma_conv_global_max: a tensor-core convolution whose output is reduced before it
// is stored. Tiles of the kernels, and what both do on the host.
#pragma once

#include <array>

#include "launch/image_parts.h"
#include "launch/mma_fused_tiles.h"
#include "launch/mma_gather.h"

namespace fastconv {

extern const KernelFamily<ConvMaxPoolProblem> mma_conv_max_pool;
extern const KernelFamily<ConvGlobalMaxProblem> mma_conv_global_max;

namespace mma {

inline const FusedKernels& fused_kernels_of(const ConvProblem& problem) {
  if (problem.dtype == DataType::float16) return fused_kernels<Half, Precision::native>();
  if (problem.dtype == DataType::bfloat16) return fused_kernels<BFloat16, Precision::native>();
  if (problem.allow_tf32) return fused_kernels<float, Precision::tf32>();
  return fused_kernels<float, Precision::split_tf32>();
}

// The kernels for a problem's pixels.
template <class Parameters>
const std::vector<Kernel<Parameters>>& tiles_for(const KernelSet<Parameters>& kernels, const Geometry& geometry) {
  return geometry.is_narrow() ? kernels.narrow : kernels.tiles;
}

template <class Parameters>
const Kernel<Parameters>* find_kernel(const std::vector<Kernel<Parameters>>& kernels, const std::string& config) {
  for (const auto& kernel : kernels) {
    if (kernel.tile.name() == config) return &kernel;
  }
  return nullptr;
}

template <class Parameters>
std::string why_not_tile(const ConvProblem& conv, const Kernel<Parameters>* kernel, int64_t blocks) {
  if (kernel == nullptr) return "there is no such configuration";
  const std::string reason = why_no_shared_memory(kernel->shared_bytes, conv.target);
  return reason.empty() && blocks > INT32_MAX ? "2^31 blocks or more" : reason;
}

// Blocks of a launch of `row_tiles` tiles of rows; 2^31 where there are more.
inline int64_t fused_blocks(const ConvProblem& conv, const Geometry& geometry, const Tile& tile, int64_t row_tiles) {
  const int64_t column_tiles = divide_up(geometry.output_channels, tile.columns);
  if (row_tiles * column_tiles * conv.groups > INT32_MAX) return int64_t{INT32_MAX} + 1;
  // lay_out_rasters fills the last raster up; it counts these exactly.
  GatherParameters parameters{};
  return lay_out_rasters(parameters, geometry, tile, conv.groups, static_cast<uint32_t>(row_tiles));
}

// bytes: all that a launch moves, stored: those of its outputs. blocks: of it, 0 where the tile cannot do it.
inline Work fused_work(const ConvProblem& conv, const Geometry& geometry, const Tile& tile, int64_t bytes,
                       int64_t stored, int64_t blocks) {
  Work work{};
  work.blocks = std::max<int64_t>(1, blocks);
  work.slices = std::max(1.0, double(conv.w.sizes[2] * conv.w.sizes[3] * geometry.channel_pitch) / tile.depth);
  work.element_size = geometry.element;
  work.precision = precision_of(conv);
  work.memory_bytes = static_cast<double>(bytes);
  work.extra_launches = !geometry.weights_in_place;
  add_conversion(work, conv, geometry, static_cast<double>(stored));
  return work;
}

// conv: of all images. work: of one of `parts`, as geometry.
template <class Parameters>
Description describe_fused(const ConvProblem& conv, const Geometry& geometry, const Kernel<Parameters>& kernel,
                           const Work& work, int64_t parts, int64_t compulsory_bytes) {
  Description description = describe(conv, kernel, work, 1,
                                     {{"copy_bytes", geometry.copy_bytes()},
                                      {"converts_layout", geometry.piece_bytes == 0},
                                      {"repacks_weights", !geometry.weights_in_place},
                                      {"parts", parts}});
  description.compulsory_bytes = compulsory_bytes;
  description.predicted_seconds *= static_cast<double>(parts);
  return description;
}

// A fused problem and a tile made ready, but for what the epilogue writes. Pixels that turn out to be unaligned have
// another kernel, with a tile and parameters of its own.
template <class Parameters>
class FusedLaunch {
 public:
  // parameters_of(tile) -> Parameters, everything but the pointers.
  template <class ParametersOf>
  FusedLaunch(const ConvProblem& conv, const KernelSet<Parameters>& kernels, const Kernel<Parameters>& kernel,
              const ParametersOf& parameters_of)
      : conv_(conv),
        geometry_(conv),
        kernel_(kernel),
        narrow_(geometry_.is_narrow() ? kernel : kernels.narrow[0]),
        parameters_(parameters_of(kernel_.tile)),
        narrow_parameters_(parameters_of(narrow_.tile)),
        operands_(conv, geometry_, workspace_) {}

  const Geometry& geometry() const { return geometry_; }
  const Parameters& parameters() const { return parameters_; }
  Workspace& workspace() { return workspace_; }
  int64_t workspace_bytes() const { return workspace_.bytes(); }
  Packing packing() const { return operands_.packing(); }

  struct Ready {
    const Kernel<Parameters>& kernel;
    Parameters parameters;
    GatherOperands::Ready operands;
  };
  // The kernel for the tensors as they lie, with their pointers.
  Ready ready(const LaunchArguments& arguments) const {
    const auto [x, w, y, bias, places] = arguments.pointers;
    const GatherOperands::Ready operands = operands_(x, w, arguments);
    const bool narrow = operands.piece_bytes < 16;
    Ready ready{narrow ? narrow_ : kernel_, narrow ? narrow_parameters_ : parameters_, operands};
    GatherParameters& gather = ready.parameters.gather;
    gather.source = operands.source;
    gather.piece_bytes = operands.piece_bytes;
    gather.weights = operands.weights;
    gather.out.bias = conv_.has_bias ? bias : nullptr;
    return ready;
  }

  // outputs: what the epilogue writes.
  void launch(const char* name, const Ready& ready, const std::array<TensorRange, 2>& outputs,
              const Stream& stream) const {
    const GatherParameters& gather = ready.parameters.gather;
    const Kernel<Parameters>& kernel = ready.kernel;
    launch_kernel(
        {name, gather.tiles_of_split.divisor(), 32 * kernel.tile.warps(), kernel.shared_bytes, kernel.launch_bound},
        kernel.function, ready.parameters,
        {{"x", ready.operands.source, ready.operands.source_bytes},
         {"w", ready.operands.weights, ready.operands.weight_bytes},
         {"bias", gather.out.bias, conv_.y.sizes[1] * geometry_.element},
         outputs[0],
         outputs[1]},
        stream);
  }

 private:
  const ConvProblem conv_;
  const Geometry geometry_;
  const Kernel<Parameters> kernel_, narrow_;
  const Parameters parameters_, narrow_parameters_;
  Workspace workspace_;
  const GatherOperands operands_;
};

}  // namespace mma
}  // namespace fastconv
