// The family mma_conv_global_max.
#include <memory>

#include "kernels/mma_conv/best_gemm.cuh"
#include "launch/mma_fused.h"

namespace fastconv {
namespace mma {
namespace {

int64_t map_pixels(const ConvGlobalMaxProblem& problem) {
  return problem.conv.y.sizes[2] * problem.conv.y.sizes[3];
}

int64_t tiles_of_image(const ConvGlobalMaxProblem& problem, const Tile& tile) {
  return divide_up(map_pixels(problem), tile.rows);
}

// As kBestParts of the kernel.
int64_t parts_of_image(const ConvGlobalMaxProblem& problem, const Tile& tile) {
  return tiles_of_image(problem, tile) * std::max(1, 32 * tile.warps() / tile.columns);
}

int64_t part_bytes(const ConvGlobalMaxProblem& problem, const Tile& tile) {
  return problem.outputs() * parts_of_image(problem, tile) * static_cast<int64_t>(sizeof(Best));
}

int64_t blocks_of(const ConvGlobalMaxProblem& problem, const Geometry& geometry, const Tile& tile) {
  const int64_t row_tiles = problem.conv.y.sizes[0] * tiles_of_image(problem, tile);
  if (row_tiles * divide_up(geometry.output_channels, tile.columns) * problem.conv.groups > INT32_MAX) {
    return int64_t{INT32_MAX} + 1;
  }
  GatherParameters parameters{};
  return lay_out_rasters(parameters, geometry, tile, problem.conv.groups, static_cast<uint32_t>(row_tiles));
}

const std::vector<Kernel<BestGatherParameters>>& kernels_for(const ConvGlobalMaxProblem& problem,
                                                             const Geometry& geometry) {
  return tiles_for(fused_kernels_of(problem.conv).best, geometry);
}

Work work_of(const ConvGlobalMaxProblem& problem, const Geometry& geometry, const Tile& tile) {
  Work work = fused_work(problem.conv, geometry, problem.compulsory_bytes());
  work.memory_bytes += 2.0 * static_cast<double>(part_bytes(problem, tile));
  work.extra_launches += 1;
  return work;
}

std::vector<std::string> configs(const ConvGlobalMaxProblem& problem) {
  if (!why_not_gather(problem.conv).empty()) return {""};
  const Geometry geometry(problem.conv);
  const auto& kernels = kernels_for(problem, geometry);
  return fused_configs(problem.conv, geometry, kernels, work_of(problem, geometry, kernels[0].tile),
                       [&](const Tile& tile) { return blocks_of(problem, geometry, tile); });
}

std::string can_implement(const ConvGlobalMaxProblem& problem, const std::string& config) {
  const std::string reason = why_not_gather(problem.conv);
  if (!reason.empty()) return reason;
  const Geometry geometry(problem.conv);
  const auto* kernel = find_kernel(kernels_for(problem, geometry), config);
  if (kernel != nullptr &&
      geometry.workspace_bytes(1) + part_bytes(problem, kernel->tile) > problem.conv.most_workspace_bytes) {
    return too_much_workspace(problem.conv, "converted operands and the parts of the maps");
  }
  return why_not_tile(problem.conv, kernel, kernel != nullptr ? blocks_of(problem, geometry, kernel->tile) : 0);
}

BestGatherParameters parameters_for(const ConvGlobalMaxProblem& problem, const Geometry& geometry, const Tile& tile) {
  BestGatherParameters parameters{gather_parameters(problem.conv, geometry, 1), {}, 0, nullptr, 0};
  const int64_t tiles = tiles_of_image(problem, tile);
  const auto row_tiles = static_cast<uint32_t>(problem.conv.y.sizes[0] * tiles);
  lay_out_rasters(parameters.gather, geometry, tile, problem.conv.groups, row_tiles);
  parameters.gather.phase_count = 1;
  parameters.gather.tile_begin[1] = row_tiles;
  parameters.tiles_of_image = FastDivider<uint32_t>(static_cast<uint32_t>(tiles));
  parameters.map_pixels = static_cast<int>(map_pixels(problem));
  parameters.parts = static_cast<int>(parts_of_image(problem, tile));
  return parameters;
}

class Launch {
 public:
  Launch(const ConvGlobalMaxProblem& problem, const Kernel<BestGatherParameters>& kernel)
      : problem_(problem),
        geometry_(problem.conv),
        kernel_(kernel),
        narrow_(geometry_.is_narrow() ? kernel : fused_kernels_of(problem.conv).best.narrow[0]),
        parameters_(parameters_for(problem, geometry_, kernel.tile)),
        narrow_parameters_(parameters_for(problem, geometry_, narrow_.tile)),
        operands_(problem.conv, geometry_, workspace_) {
    // Pixels that turn out to be unaligned have the other kernel and its tiles.
    parts_at_ = workspace_.take(std::max(part_bytes(problem, kernel_.tile), part_bytes(problem, narrow_.tile)));
  }

  int64_t workspace_bytes() const { return workspace_.bytes(); }
  Packing packing() const { return operands_.packing(); }
  const BestGatherParameters& parameters() const { return parameters_; }

  void operator()(const LaunchArguments& arguments) const {
    const auto [x, w, y, bias, indices] = arguments.pointers;
    const GatherOperands::Ready ready = operands_(x, w, arguments);
    const bool narrow = ready.piece_bytes < 16;
    const auto& kernel = narrow ? narrow_ : kernel_;
    BestGatherParameters parameters = narrow ? narrow_parameters_ : parameters_;
    GatherParameters& gather = parameters.gather;
    gather.source = ready.source;
    gather.piece_bytes = ready.piece_bytes;
    gather.weights = ready.weights;
    gather.out.bias = problem_.conv.has_bias ? bias : nullptr;
    parameters.parts_of_maps = reinterpret_cast<Best*>(static_cast<unsigned char*>(arguments.workspace) + parts_at_);
    launch_kernel({"mma_conv_global_max", gather.tiles_of_split.divisor(), 32 * kernel.tile.warps(),
                   kernel.shared_bytes, kernel.launch_bound},
                  kernel.function, parameters,
                  {{"x", ready.source, ready.source_bytes},
                   {"w", ready.weights, ready.weight_bytes},
                   {"bias", gather.out.bias, problem_.conv.y.sizes[1] * geometry_.element},
                   {"parts", parameters.parts_of_maps, part_bytes(problem_, kernel.tile), true}},
                  arguments.stream);
    merge(parameters, part_bytes(problem_, kernel.tile), y, indices, arguments.stream);
  }

 private:
  void merge(const BestGatherParameters& gathered, int64_t bytes, void* y, void* indices, const Stream& stream) const {
    MergeParameters parameters{};
    parameters.parts_of_maps = gathered.parts_of_maps;
    parameters.output = y;
    parameters.indices = static_cast<int64_t*>(indices);
    parameters.parts = gathered.parts;
    parameters.channels = gathered.gather.all_output_channels;
    const int64_t column_blocks = divide_up(parameters.channels, kMergeColumns);
    parameters.column_blocks = FastDivider<uint32_t>(static_cast<uint32_t>(column_blocks));
    const LaunchShape shape{"merge_best", static_cast<unsigned>(problem_.conv.y.sizes[0] * column_blocks),
                            kMergeColumns * kMergeShares, 0, kMergeColumns * kMergeShares};
    const auto launch = [&](auto kernel) {
      launch_kernel(shape, kernel, parameters,
                    {{"parts", parameters.parts_of_maps, bytes},
                     {"y", y, problem_.outputs() * geometry_.element, true},
                     {"indices", indices, problem_.outputs() * 8, true}},
                    stream);
    };
    if (problem_.conv.dtype == DataType::float16) return launch(merge_best<Half>);
    if (problem_.conv.dtype == DataType::bfloat16) return launch(merge_best<BFloat16>);
    launch(merge_best<float>);
  }

  const ConvGlobalMaxProblem problem_;
  const Geometry geometry_;
  const Kernel<BestGatherParameters> kernel_, narrow_;
  const BestGatherParameters parameters_, narrow_parameters_;
  Workspace workspace_;
  const GatherOperands operands_;
  int64_t parts_at_;
};

Prepared prepare(const ConvGlobalMaxProblem& problem, const std::string& config) {
  const Geometry geometry(problem.conv);
  const Kernel<BestGatherParameters>& kernel = *find_kernel(kernels_for(problem, geometry), config);
  auto launch = std::make_shared<Launch>(problem, kernel);
  Prepared prepared;
  prepared.description =
      describe_fused(problem.conv, geometry, kernel, work_of(problem, geometry, kernel.tile),
                     launch->parameters().gather.tiles_of_split.divisor(), problem.compulsory_bytes());
  prepared.description.workspace_bytes = launch->workspace_bytes();
  prepared.packing = launch->packing();
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvGlobalMaxProblem> mma_conv_global_max{
    "mma_conv_global_max",
    "implicit GEMM on tensor cores whose epilogue keeps the largest of each column, parts of a map merged in order",
    mma::configs, mma::can_implement, mma::prepare};

}  // namespace fastconv
