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

// Of a tile, and of the one that pixels have which turn out to be unaligned: of the larger workspace.
int64_t most_part_bytes(const ConvGlobalMaxProblem& problem, const Tile& tile) {
  const Tile& narrow = fused_kernels_of(problem.conv).best.narrow[0].tile;
  return std::max(part_bytes(problem, tile), part_bytes(problem, narrow));
}

int64_t blocks_of(const ConvGlobalMaxProblem& problem, const Geometry& geometry, const Tile& tile) {
  return fused_blocks(problem.conv, geometry, tile, problem.conv.y.sizes[0] * tiles_of_image(problem, tile));
}

const std::vector<Kernel<BestGatherParameters>>& kernels_for(const ConvGlobalMaxProblem& problem,
                                                             const Geometry& geometry) {
  return tiles_for(fused_kernels_of(problem.conv).best, geometry);
}

ConvGlobalMaxProblem with_images(const ConvGlobalMaxProblem& problem, int64_t images) {
  return {mma::with_images(problem.conv, images)};
}

int64_t stored_bytes(const ConvGlobalMaxProblem& problem) {
  return problem.outputs() * (size_of(problem.conv.dtype) + 8);
}

// What one launch computes: images that are turned to channels-last at a time, mostly all.
ConvGlobalMaxProblem part_of(const ConvGlobalMaxProblem& problem) {
  return with_images(problem, images_of_a_part(problem.conv, static_cast<double>(stored_bytes(problem))));
}

Work work_of(const ConvGlobalMaxProblem& problem, const Geometry& geometry, const Tile& tile) {
  Work work = fused_work(problem.conv, geometry, tile, problem.compulsory_bytes() + 2 * part_bytes(problem, tile),
                         stored_bytes(problem), blocks_of(problem, geometry, tile));
  work.extra_launches += 1;
  return work;
}

std::vector<std::string> configs(const ConvGlobalMaxProblem& whole) {
  if (!why_not_gather(whole.conv).empty()) return {""};
  const ConvGlobalMaxProblem problem = part_of(whole);
  const Geometry geometry(problem.conv);
  return ranked_configs(problem.conv.target, kernels_for(problem, geometry), 1,
                        [&](const Tile& tile) { return work_of(problem, geometry, tile); });
}

std::string can_implement(const ConvGlobalMaxProblem& whole, const std::string& config) {
  const std::string reason = why_not_gather(whole.conv);
  if (!reason.empty()) return reason;
  const ConvGlobalMaxProblem problem = part_of(whole);
  const Geometry geometry(problem.conv);
  const auto* kernel = find_kernel(kernels_for(problem, geometry), config);
  if (kernel == nullptr) return why_not_tile(problem.conv, kernel, 0);
  if (geometry.workspace_bytes(1) + Workspace::size_of({most_part_bytes(problem, kernel->tile)}) >
      problem.conv.most_workspace_bytes) {
    return too_much_workspace(problem.conv, "converted operands and the parts of the maps");
  }
  return why_not_tile(problem.conv, kernel, blocks_of(problem, geometry, kernel->tile));
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

void merge(const ConvGlobalMaxProblem& problem, const BestGatherParameters& gathered, int64_t bytes, void* y,
           void* indices, const Stream& stream) {
  MergeParameters parameters{};
  parameters.parts_of_maps = gathered.parts_of_maps;
  parameters.output = y;
  parameters.indices = static_cast<int64_t*>(indices);
  parameters.parts = gathered.parts;
  parameters.channels = gathered.gather.all_output_channels;
  const int64_t column_blocks = divide_up(parameters.channels, kMergeColumns);
  parameters.column_blocks = FastDivider<uint32_t>(static_cast<uint32_t>(column_blocks));
  const LaunchShape shape{"merge_best", static_cast<unsigned>(problem.conv.y.sizes[0] * column_blocks),
                          kMergeColumns * kMergeShares, 0, kMergeColumns * kMergeShares};
  const auto launch = [&](auto kernel) {
    launch_kernel(shape, kernel, parameters,
                  {{"parts", parameters.parts_of_maps, bytes},
                   {"y", y, problem.outputs() * size_of(problem.conv.dtype), true},
                   {"indices", indices, problem.outputs() * 8, true}},
                  stream);
  };
  if (problem.conv.dtype == DataType::float16) return launch(merge_best<Half>);
  if (problem.conv.dtype == DataType::bfloat16) return launch(merge_best<BFloat16>);
  launch(merge_best<float>);
}

// A part made ready.
class BestLaunch {
 public:
  BestLaunch(const ConvGlobalMaxProblem& problem, const Kernel<BestGatherParameters>& kernel)
      : problem_(problem),
        launch_(problem.conv, fused_kernels_of(problem.conv).best, kernel,
                [&](const Tile& tile) { return parameters_for(problem, Geometry(problem.conv), tile); }),
        parts_at_(launch_.workspace().take(most_part_bytes(problem, kernel.tile))) {}

  int64_t workspace_bytes() const { return launch_.workspace_bytes(); }
  Packing packing() const { return launch_.packing(); }

  void operator()(const LaunchArguments& arguments) const {
    const auto [x, w, y, bias, indices] = arguments.pointers;
    auto ready = launch_.ready(arguments);
    Best*& parts = ready.parameters.parts_of_maps;
    parts = reinterpret_cast<Best*>(static_cast<unsigned char*>(arguments.workspace) + parts_at_);
    const int64_t bytes = part_bytes(problem_, ready.kernel.tile);
    launch_.launch("mma_conv_global_max", ready, {{{"parts", parts, bytes, true}, {}}}, arguments.stream);
    merge(problem_, ready.parameters, bytes, y, indices, arguments.stream);
  }

 private:
  const ConvGlobalMaxProblem problem_;
  FusedLaunch<BestGatherParameters> launch_;
  const int64_t parts_at_;
};

Prepared prepare(const ConvGlobalMaxProblem& whole, const std::string& config) {
  const ConvGlobalMaxProblem problem = part_of(whole);
  const Geometry geometry(problem.conv);
  const Kernel<BestGatherParameters>& kernel = *find_kernel(kernels_for(problem, geometry), config);
  const int64_t channels = whole.conv.y.sizes[1];  // y and indices are dense
  const std::array<int64_t, 5> steps{whole.conv.x.strides[0] * geometry.element, 0, channels * geometry.element, 0,
                                     channels * 8};
  const auto launch = std::make_shared<const ImageParts<BestLaunch>>(
      whole.conv.x.sizes[0], problem.conv.x.sizes[0], steps,
      [&](int64_t images) { return BestLaunch(with_images(whole, images), kernel); });
  Prepared prepared;
  prepared.description = describe_fused(whole.conv, geometry, kernel, work_of(problem, geometry, kernel.tile),
                                        launch->count(), whole.compulsory_bytes());
  prepared.description.workspace_bytes = launch->first().workspace_bytes();
  prepared.packing = launch->first().packing();
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvGlobalMaxProblem> mma_conv_global_max{
    "mma_conv_global_max",
    "implicit GEMM on tensor cores whose epilogue keeps the largest of each column, parts of a map merged in order",
    mma::configs,
    mma::can_implement,
    mma::prepare,
    true};

}  // namespace fastconv
