// The families mma_conv_max_pool and mma_conv_global_max: a tensor-core convolution whose output is reduced before it
// is stored. Tiles of the kernels, and what both do on the host.
#pragma once

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

// Candidates by their predicted time. blocks_of(tile) -> blocks of the launch, 0 where the tile cannot do it.
template <class Parameters, class BlocksOf>
std::vector<std::string> fused_configs(const ConvProblem& conv, const Geometry& geometry,
                                       const std::vector<Kernel<Parameters>>& kernels, const Work& work,
                                       const BlocksOf& blocks_of) {
  const Machine machine = Machine::of(conv.target);
  std::vector<Candidate> found;
  for (const auto& kernel : kernels) {
    Work of_tile = work;
    of_tile.blocks = std::max<int64_t>(1, blocks_of(kernel.tile));
    of_tile.slices =
        std::max(1.0, double(conv.w.sizes[2] * conv.w.sizes[3] * geometry.channel_pitch) / kernel.tile.depth);
    found.push_back({kernel.tile.name(), rank(machine, kernel.tile, kernel.shared_bytes, of_tile, 1)});
  }
  return names_by_rank(std::move(found));
}

template <class Parameters>
std::string why_not_tile(const ConvProblem& conv, const Kernel<Parameters>* kernel, int64_t blocks) {
  if (kernel == nullptr) return "there is no such configuration";
  const int most = Machine::of(conv.target).block_shared_bytes;
  if (kernel->shared_bytes > most) {
    return "needs " + std::to_string(kernel->shared_bytes) + " bytes of shared memory, a block has " +
           std::to_string(most);
  }
  return blocks > INT32_MAX ? "2^31 blocks or more" : "";
}

// All but the tile's part.
inline Work fused_work(const ConvProblem& conv, const Geometry& geometry, int64_t compulsory_bytes) {
  Work work{};
  work.element_size = geometry.element;
  work.precision = precision_of(conv);
  work.memory_bytes = static_cast<double>(compulsory_bytes) + 2.0 * geometry.converted_bytes;
  work.extra_launches = (geometry.piece_bytes == 0) + !geometry.weights_in_place;
  return work;
}

template <class Parameters>
Description describe_fused(const ConvProblem& conv, const Geometry& geometry, const Kernel<Parameters>& kernel,
                           Work work, int64_t blocks, int64_t compulsory_bytes) {
  const Machine machine = Machine::of(conv.target);
  work.blocks = blocks;
  work.slices = std::max(1.0, double(conv.w.sizes[2] * conv.w.sizes[3] * geometry.channel_pitch) / kernel.tile.depth);
  Description description;
  description.blocks = static_cast<unsigned>(blocks);
  description.threads = 32 * kernel.tile.warps();
  description.shared_bytes = kernel.shared_bytes;
  description.flops = conv.flops();
  description.compulsory_bytes = compulsory_bytes;
  description.predicted_seconds = predict_seconds(machine, kernel.tile, kernel.shared_bytes, work, 1);
  description.choices = {
      {"tile_rows", kernel.tile.rows},
      {"tile_columns", kernel.tile.columns},
      {"tile_depth", kernel.tile.depth},
      {"stages", kernel.tile.stages},
      {"copy_bytes", geometry.piece_bytes == 0 ? 16 : geometry.piece_bytes},
      {"converts_layout", geometry.piece_bytes == 0},
      {"repacks_weights", !geometry.weights_in_place},
      {"last_wave_percent", static_cast<int64_t>(100 * last_wave_efficiency(blocks, machine.multiprocessors))},
  };
  return description;
}

}  // namespace mma
}  // namespace fastconv
