// The family mma_conv_max_pool.
#include <memory>

#include "launch/mma_fused.h"

namespace fastconv {
namespace mma {
namespace {

// The pooled outputs of a patch, and the outputs of the convolution that their windows span.
struct Patch {
  int64_t pooled_rows = 0, pooled_columns = 0, height = 0, width = 0;
  int64_t down = 0, across = 0;  // patches of an image
};

int64_t span_of(int64_t windows, int kernel, int stride) {
  return (windows - 1) * stride + kernel;
}

// The patch of at most `rows` outputs that leaves the fewest patches to an image; of several the one that spans least.
Patch choose_patch(const PoolProblem& pool, int rows) {
  Patch best;
  for (int64_t columns = 1; columns <= pool.y.sizes[3]; ++columns) {
    const int64_t width = span_of(columns, pool.kernel[1], pool.stride[1]);
    if (width * pool.kernel[0] > rows) break;
    const int64_t most_rows = (rows / width - pool.kernel[0]) / pool.stride[0] + 1;
    const int64_t down = divide_up(pool.y.sizes[2], std::min(most_rows, pool.y.sizes[2]));
    // As equal as can be: a patch that hangs over the map's end computes outputs that nobody wants.
    const int64_t pooled_rows = divide_up(pool.y.sizes[2], down);
    const int64_t across = divide_up(pool.y.sizes[3], columns);
    const int64_t height = span_of(pooled_rows, pool.kernel[0], pool.stride[0]);
    const int64_t patches = down * across, fewest = best.down * best.across;
    if (best.down == 0 || patches < fewest || (patches == fewest && height * width < best.height * best.width)) {
      best = {pooled_rows, columns, height, width, down, across};
    }
  }
  return best;
}

int64_t stored_bytes(const ConvMaxPoolProblem& problem) {
  return problem.pool.y.count() * (size_of(problem.conv.dtype) + 1);
}

ConvMaxPoolProblem with_images(const ConvMaxPoolProblem& problem, int64_t images) {
  ConvMaxPoolProblem part = problem;
  part.conv = mma::with_images(problem.conv, images);
  for (Operand* operand : {&part.pool.x, &part.pool.y, &part.pool.offsets}) operand->sizes[0] = images;
  return part;
}

// What one launch computes: images that are turned to channels-last at a time, mostly all.
ConvMaxPoolProblem part_of(const ConvMaxPoolProblem& problem) {
  return with_images(problem, images_of_a_part(problem.conv, static_cast<double>(stored_bytes(problem))));
}

std::string why_not(const ConvMaxPoolProblem& problem) {
  const std::string reason = why_not_gather(problem.conv);
  if (!reason.empty()) return reason;
  if (problem.pool.offsets_type != OffsetType::uint8) return "a pool whose offsets do not fit a byte";
  if (problem.pool.dilation != std::array<int, 2>{1, 1}) return "a pool with dilation";
  return "";
}

int64_t row_tiles_of(const ConvMaxPoolProblem& problem, const Patch& patch) {
  return problem.pool.y.sizes[0] * patch.down * patch.across;
}

int64_t blocks_of(const ConvMaxPoolProblem& problem, const Geometry& geometry, const Tile& tile) {
  return fused_blocks(problem.conv, geometry, tile, row_tiles_of(problem, choose_patch(problem.pool, tile.rows)));
}

const std::vector<Kernel<PoolGatherParameters>>& kernels_for(const ConvMaxPoolProblem& problem,
                                                             const Geometry& geometry) {
  return tiles_for(fused_kernels_of(problem.conv).pool, geometry);
}

Work work_of(const ConvMaxPoolProblem& problem, const Geometry& geometry, const Tile& tile) {
  return fused_work(problem.conv, geometry, tile, problem.compulsory_bytes(), stored_bytes(problem),
                    blocks_of(problem, geometry, tile));
}

std::vector<std::string> configs(const ConvMaxPoolProblem& whole) {
  if (!why_not(whole).empty()) return {""};
  const ConvMaxPoolProblem problem = part_of(whole);
  const Geometry geometry(problem.conv);
  return ranked_configs(problem.conv.target, kernels_for(problem, geometry), 1,
                        [&](const Tile& tile) { return work_of(problem, geometry, tile); });
}

// Why no patch of a tile closes a pooling window; empty where one does.
std::string why_no_patch(const ConvMaxPoolProblem& problem, const Tile& tile) {
  if (choose_patch(problem.pool, tile.rows).down > 0) return "";
  return "a pooling window of " + std::to_string(problem.pool.kernel[0]) + " x " +
         std::to_string(problem.pool.kernel[1]) + ", which does not fit a tile of " + std::to_string(tile.rows) +
         " pixels";
}

std::string can_implement(const ConvMaxPoolProblem& whole, const std::string& config) {
  std::string reason = why_not(whole);
  if (!reason.empty()) return reason;
  const ConvMaxPoolProblem problem = part_of(whole);
  const Geometry geometry(problem.conv);
  const auto* kernel = find_kernel(kernels_for(problem, geometry), config);
  if (kernel == nullptr) return why_not_tile(problem.conv, kernel, 0);
  reason = why_no_patch(problem, kernel->tile);
  // Where the tensors lie is not known yet.
  if (reason.empty() && geometry.piece_bytes == 16) {
    reason = why_no_patch(problem, fused_kernels_of(problem.conv).pool.narrow[0].tile);
    if (!reason.empty()) reason += ", as x has if its address is not a multiple of 16";
  }
  return reason.empty() ? why_not_tile(problem.conv, kernel, blocks_of(problem, geometry, kernel->tile)) : reason;
}

// Lanes that go along pooled columns (NCHW) read one chunk of channels of outputs a stride apart. Their turns are to be
// consecutive multiples of an odd number modulo 8: then any eight pooled outputs that follow each other lie in
// different banks, those of the patch's next row too. Factors of two of a stride are shifted away; an odd number is its
// own inverse modulo 8. Lanes that go along channels have no use for it.
void exchange_chunks(PoolWindows& windows, const PoolProblem& pool) {
  if (pool.y.strides[1] == 1) {
    windows.turn_row_shift = windows.turn_column_shift = 31;
    return;
  }
  const auto twos = [](int stride) {
    int count = 0;
    while (((stride >> count) & 1) == 0) ++count;
    return count;
  };
  windows.turn_row_shift = twos(pool.stride[0]);
  windows.turn_column_shift = twos(pool.stride[1]);
  const uint32_t odd_row = static_cast<uint32_t>(pool.stride[0] >> windows.turn_row_shift),
                 odd_column = static_cast<uint32_t>(pool.stride[1] >> windows.turn_column_shift);
  windows.turn_of_row = static_cast<int>(odd_row * odd_column * windows.pooled_columns.divisor() % 8);
}

PoolGatherParameters parameters_for(const ConvMaxPoolProblem& problem, const Geometry& geometry, const Tile& tile) {
  PoolGatherParameters parameters{gather_parameters(problem.conv, geometry, 1), {}};
  const PoolProblem& pool = problem.pool;
  const Patch patch = choose_patch(pool, tile.rows);
  GatherParameters& gather = parameters.gather;
  const auto row_tiles = static_cast<uint32_t>(row_tiles_of(problem, patch));
  lay_out_rasters(gather, geometry, tile, problem.conv.groups, row_tiles);
  gather.phase_count = 1;
  gather.tile_begin[1] = row_tiles;
  gather.output_strides = pixel_strides(pool.y);
  gather.out.column_stride = pool.y.strides[1];

  const auto divider = [](int64_t divisor) { return FastDivider<uint32_t>(static_cast<uint32_t>(divisor)); };
  PoolWindows& windows = parameters.pool;
  windows.patch_width = divider(patch.width);
  windows.patch_pixels = static_cast<int>(patch.height * patch.width);
  windows.pooled_columns = divider(patch.pooled_columns);
  windows.pooled = divider(patch.pooled_rows * patch.pooled_columns);
  windows.pooled_rows = static_cast<int>(patch.pooled_rows);
  windows.patches_across = divider(patch.across);
  windows.patches = divider(patch.down * patch.across);
  windows.rows = pool.kernel[0];
  windows.columns = pool.kernel[1];
  windows.stride_height = pool.stride[0];
  windows.stride_width = pool.stride[1];
  windows.pad_top = pool.padding[0];
  windows.pad_left = pool.padding[1];
  windows.map_height = static_cast<int>(pool.x.sizes[2]);
  windows.map_width = static_cast<int>(pool.x.sizes[3]);
  windows.pooled_height = static_cast<int>(pool.y.sizes[2]);
  windows.pooled_width = static_cast<int>(pool.y.sizes[3]);
  windows.offset_strides = pixel_strides(pool.offsets);
  windows.offset_column_stride = pool.offsets.strides[1];
  exchange_chunks(windows, pool);
  return parameters;
}

// Chunks of channels can be stored whole, if the pointer is aligned to `bytes`.
bool has_whole_chunks(const Operand& operand, int groups, int64_t chunk) {
  const auto steps = [chunk](int64_t size, int64_t stride) { return size == 1 || stride % chunk == 0; };
  const auto& [sizes, strides] = operand;
  return strides[1] == 1 && sizes[1] / groups % chunk == 0 && steps(sizes[0], strides[0]) &&
         steps(sizes[2], strides[2]) && steps(sizes[3], strides[3]);
}

// A part made ready.
class PoolLaunch {
 public:
  PoolLaunch(const ConvMaxPoolProblem& problem, const Kernel<PoolGatherParameters>& kernel)
      : problem_(problem), launch_(problem.conv, fused_kernels_of(problem.conv).pool, kernel, [&](const Tile& tile) {
          return parameters_for(problem, Geometry(problem.conv), tile);
        }) {}

  int64_t workspace_bytes() const { return launch_.workspace_bytes(); }
  Packing packing() const { return launch_.packing(); }
  const PoolWindows& windows() const { return launch_.parameters().pool; }

  void operator()(const LaunchArguments& arguments) const {
    const auto [x, w, y, bias, offsets] = arguments.pointers;
    auto ready = launch_.ready(arguments);
    const PoolProblem& pool = problem_.pool;
    const int element = launch_.geometry().element, groups = problem_.conv.groups;
    const int64_t chunk = 16 / element;
    const auto aligned = [](const void* pointer, int64_t bytes) {
      return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
    };
    ready.parameters.gather.out.output = y;
    ready.parameters.gather.out.vector_access = has_whole_chunks(pool.y, groups, chunk) && aligned(y, 16);
    PoolWindows& windows = ready.parameters.pool;
    windows.offsets = static_cast<uint8_t*>(offsets);
    windows.vector_offsets = has_whole_chunks(pool.offsets, groups, chunk) && aligned(offsets, chunk);
    launch_.launch("mma_conv_max_pool", ready,
                   {{{"y", y, bytes_of(pool.y, element), true}, {"offsets", offsets, bytes_of(pool.offsets, 1), true}}},
                   arguments.stream);
  }

 private:
  const ConvMaxPoolProblem problem_;
  const FusedLaunch<PoolGatherParameters> launch_;
};

Prepared prepare(const ConvMaxPoolProblem& whole, const std::string& config) {
  const ConvMaxPoolProblem problem = part_of(whole);
  const Geometry geometry(problem.conv);
  const Kernel<PoolGatherParameters>& kernel = *find_kernel(kernels_for(problem, geometry), config);
  const int element = geometry.element;
  const std::array<int64_t, 5> steps{whole.conv.x.strides[0] * element, 0, whole.pool.y.strides[0] * element, 0,
                                     whole.pool.offsets.strides[0]};
  const auto launch = std::make_shared<const ImageParts<PoolLaunch>>(
      whole.conv.x.sizes[0], problem.conv.x.sizes[0], steps,
      [&](int64_t images) { return PoolLaunch(with_images(whole, images), kernel); });
  Prepared prepared;
  prepared.description = describe_fused(whole.conv, geometry, kernel, work_of(problem, geometry, kernel.tile),
                                        launch->count(), whole.compulsory_bytes());
  prepared.description.workspace_bytes = launch->first().workspace_bytes();
  const PoolWindows& windows = launch->first().windows();
  prepared.description.choices.emplace_back("patch_height", windows.patch_pixels / windows.patch_width.divisor());
  prepared.description.choices.emplace_back("patch_width", windows.patch_width.divisor());
  prepared.packing = launch->first().packing();
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvMaxPoolProblem> mma_conv_max_pool{
    "mma_conv_max_pool",
    "implicit GEMM on tensor cores whose epilogue pools patches of the output in shared memory: any window of a tile",
    mma::configs,
    mma::can_implement,
    mma::prepare,
    true};

}  // namespace fastconv
