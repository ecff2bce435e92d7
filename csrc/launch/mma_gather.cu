// The families mma_fprop and mma_dgrad.
#include <algorithm>
#include <memory>
#include <numeric>

#include "launch/mma_gather.h"

namespace fastconv {
namespace mma {

std::string why_not_gather(const ConvProblem& problem) {
  std::string reason = why_not_any(problem);
  if (!reason.empty()) return reason;
  const bool transposed = problem.pass == ConvPass::dgrad;
  for (int i = 0; i < 2; ++i) {
    const int64_t taps = problem.w.sizes[2 + i];
    const int stride = problem.stride[i];
    const int64_t taps_of_phase = transposed ? divide_up(taps, stride / std::gcd(stride, problem.dilation[i])) : taps;
    if (taps > kMaxTaps || taps_of_phase > 31) return "filters of more than 31 rows or columns";
    if (transposed && stride > kMaxAxisPhases) return "a stride of more than 16";
  }
  if (Geometry(problem).workspace_bytes(1) > kMostWorkspaceBytes) {
    return "turning the operand to channels-last and repacking the weights would take more than 256 MiB of workspace";
  }
  return "";
}

int64_t lay_out_rasters(GatherParameters& parameters, const Geometry& geometry, const Tile& tile, int groups,
                        uint32_t row_tiles) {
  // Rasters of at most 8 tiles of columns, as equal as can be: their weights and one panel of the source fit the cache.
  constexpr int64_t kWidestRaster = 8;
  const int64_t column_tiles = divide_up(geometry.output_channels, tile.columns);
  const int64_t rasters = divide_up(column_tiles, kWidestRaster), width = divide_up(column_tiles, rasters);
  parameters.raster_width = FastDivider<uint32_t>(static_cast<uint32_t>(width));
  parameters.rasters = FastDivider<uint32_t>(static_cast<uint32_t>(rasters));
  parameters.tiles_of_raster = FastDivider<uint32_t>(static_cast<uint32_t>(row_tiles * width));
  const int64_t blocks = row_tiles * width * rasters * groups;
  parameters.tiles_of_split = FastDivider<uint32_t>(static_cast<uint32_t>(blocks));
  return blocks;
}

GatherParameters gather_parameters(const ConvProblem& problem, const Geometry& geometry, int splits) {
  GatherParameters parameters{};
  const Operand source =
      geometry.piece_bytes == 0 ? as_channels_last(geometry.source, problem.groups, geometry.element) : geometry.source;
  parameters.source_strides = pixel_strides(source);
  parameters.output_strides = pixel_strides(geometry.output);
  parameters.residual_strides = pixel_strides(problem.residual);
  parameters.rows = geometry.rows.axis;
  parameters.columns = geometry.columns.axis;
  parameters.partial_rows_row = geometry.output.sizes[3];
  parameters.partial_rows_batch = geometry.output.sizes[2] * geometry.output.sizes[3];
  parameters.total_taps_across = static_cast<int>(problem.w.sizes[3]);
  parameters.batch = static_cast<int>(geometry.output.sizes[0]);
  parameters.source_channels = static_cast<int>(geometry.source_channels);
  parameters.output_channels = static_cast<int>(geometry.output_channels);
  parameters.all_output_channels = static_cast<int>(geometry.output.sizes[1]);
  parameters.source_group_step =
      static_cast<int>(geometry.piece_bytes == 0 ? geometry.channel_pitch : geometry.source_channels);
  parameters.channel_pitch = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.channel_pitch));
  parameters.splits = FastDivider<uint32_t>(static_cast<uint32_t>(splits));
  OutputParameters& out = parameters.out;
  out.column_stride = geometry.output.strides[1];
  out.residual_column_stride = problem.residual.strides[1];
  out.activation = problem.activation;
  out.partial_pitch = geometry.partial_pitch;
  out.partial_split_stride = geometry.pixels() * geometry.partial_pitch;
  return parameters;
}

namespace {

RepackParameters repack_for(const ConvProblem& problem, const Geometry& geometry) {
  RepackParameters repack{};
  const auto& [sizes, strides] = problem.w;
  const int64_t filters = sizes[0] / problem.groups, chunks = geometry.channel_pitch * geometry.element / 16;
  repack.output_stride = geometry.transposed ? strides[1] : strides[0];
  repack.input_stride = geometry.transposed ? strides[0] : strides[1];
  repack.group_stride = filters * strides[0];
  repack.row_stride = strides[2];
  repack.column_stride = strides[3];
  repack.inputs = static_cast<int>(geometry.source_channels);
  repack.input_pitch = static_cast<int>(geometry.channel_pitch);
  repack.all_outputs = static_cast<int>(geometry.output.sizes[1]);
  repack.taps_across = static_cast<int>(sizes[3]);
  repack.items = repack.all_outputs * chunks * sizes[2] * sizes[3];
  repack.outputs_fastest = repack.output_stride == 1;
  repack.outputs = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.output_channels));
  repack.taps_divider = FastDivider<uint32_t>(static_cast<uint32_t>(sizes[2] * sizes[3]));
  repack.taps_across_divider = FastDivider<uint32_t>(static_cast<uint32_t>(sizes[3]));
  repack.chunks_divider = FastDivider<uint32_t>(static_cast<uint32_t>(chunks));
  repack.all_outputs_divider = FastDivider<uint32_t>(static_cast<uint32_t>(repack.all_outputs));
  for (int tap = 0; tap < kMaxTaps; ++tap) {
    repack.row_place[tap] = geometry.rows.place[tap];
    repack.row_taps[tap] = geometry.rows.taps[tap];
    repack.rows_before[tap] = geometry.rows.before[tap];
    repack.column_place[tap] = geometry.columns.place[tap];
    repack.column_taps[tap] = geometry.columns.taps[tap];
    repack.columns_before[tap] = geometry.columns.before[tap];
  }
  return repack;
}

}  // namespace

GatherOperands::GatherOperands(const ConvProblem& problem, const Geometry& geometry, Workspace& workspace)
    : problem_(problem), geometry_(geometry), repack_(repack_for(problem, geometry)) {
  packed_at_ = workspace.take(geometry.packed_bytes);
  converted_at_ = workspace.take(geometry.converted_bytes);
}

GatherOperands::Ready GatherOperands::operator()(const void* source, const void* w,
                                                 const LaunchArguments& arguments) const {
  auto* workspace = static_cast<unsigned char*>(arguments.workspace);
  const int element = geometry_.element;
  Ready ready{source, bytes_of(geometry_.source, element), w, bytes_of(problem_.w, element), 16};
  if (geometry_.piece_bytes == 0) {
    launch_conversion(problem_, geometry_.source, source, workspace + converted_at_, arguments.stream);
    ready.source = workspace + converted_at_;
    ready.source_bytes = geometry_.converted_bytes;
  } else {
    ready.piece_bytes = piece_bytes_of(source, geometry_.piece_bytes);
  }
  if (!geometry_.weights_in_place || !is_aligned(w)) {
    RepackParameters repack = repack_;
    repack.source = w;
    repack.destination = workspace + packed_at_;
    launch_repack(problem_.dtype, repack, ready.weight_bytes, geometry_.packed_bytes, arguments.stream);
    ready.weights = repack.destination;
    ready.weight_bytes = geometry_.packed_bytes;
  }
  return ready;
}

namespace {

// The tiles of the phases, longest sums first, and the order in which blocks take them. Returns the blocks of one
// split.
int64_t lay_out_tiles(GatherParameters& parameters, const Geometry& geometry, const Tile& tile, int groups) {
  struct Phase {
    int row, column, taps;
    int64_t pixels;
  };
  std::vector<Phase> phases;
  for (int i = 0; i < geometry.rows.phases; ++i) {
    for (int j = 0; j < geometry.columns.phases; ++j) {
      const AxisPhase &row = geometry.rows.axis.phases[i], &column = geometry.columns.axis.phases[j];
      phases.push_back({i, j, row.tap_count * column.tap_count,
                        geometry.output.sizes[0] * row.outputs.divisor() * column.outputs.divisor()});
    }
  }
  std::stable_sort(phases.begin(), phases.end(), [](const Phase& a, const Phase& b) { return a.taps > b.taps; });
  uint32_t tiles = 0;
  for (size_t i = 0; i < phases.size(); ++i) {
    parameters.tile_begin[i] = tiles;
    parameters.phase_row[i] = static_cast<uint8_t>(phases[i].row);
    parameters.phase_column[i] = static_cast<uint8_t>(phases[i].column);
    tiles += static_cast<uint32_t>(divide_up(phases[i].pixels, tile.rows));
  }
  parameters.tile_begin[phases.size()] = tiles;
  parameters.phase_count = static_cast<int>(phases.size());
  return lay_out_rasters(parameters, geometry, tile, groups, tiles);
}

// Everything but the pointers, for one tile.
GatherParameters parameters_for(const ConvProblem& problem, const Geometry& geometry, const Tile& tile, int splits) {
  GatherParameters parameters = gather_parameters(problem, geometry, splits);
  lay_out_tiles(parameters, geometry, tile, problem.groups);
  return parameters;
}

// Chunks of columns can be loaded and stored whole, if the pointers are aligned.
bool allows_vectors(const ConvProblem& problem, const Geometry& geometry) {
  const auto whole = [&](const Operand& operand) {
    return operand.strides[1] == 1 && piece_bytes_of(operand, problem.groups, geometry.element) == 16;
  };
  return whole(geometry.output) && (!problem.has_residual || whole(problem.residual));
}

Work work_of(const ConvProblem& problem, const Geometry& geometry, const Tile& tile) {
  GatherParameters parameters{};
  Work work{};
  work.blocks = lay_out_tiles(parameters, geometry, tile, problem.groups);
  const double phases = geometry.rows.phases * geometry.columns.phases;
  work.slices = std::max(1.0, problem.w.sizes[2] * problem.w.sizes[3] / phases * geometry.channel_pitch / tile.depth);
  work.element_size = geometry.element;
  work.precision = precision_of(problem);
  const double elements = problem.x.count() + problem.w.count() + problem.y.count() + problem.residual.count();
  work.memory_bytes = elements * geometry.element + 2.0 * geometry.converted_bytes;
  work.partial_elements = static_cast<double>(geometry.pixels()) * geometry.partial_pitch;
  work.extra_launches = (geometry.piece_bytes == 0) + !geometry.weights_in_place;
  return work;
}

const std::vector<Kernel<GatherParameters>>& candidates_of(const ConvProblem& problem, const Geometry& geometry) {
  const KernelSet<GatherParameters>& kernels = kernels_of<GatherParameters>(problem);
  return geometry.is_narrow() ? kernels.narrow : kernels.tiles;
}

std::vector<std::string> configs(const ConvProblem& problem) {
  if (!why_not_gather(problem).empty()) return {""};
  const Geometry geometry(problem);
  const Machine machine = Machine::of(problem.target);
  std::vector<Candidate> found;
  for (const auto& kernel : candidates_of(problem, geometry)) {
    const Work work = work_of(problem, geometry, kernel.tile);
    const int splits = best_splits(machine, kernel.tile, kernel.shared_bytes, work, geometry.most_splits());
    for (int option : split_options(splits, geometry.most_splits())) {
      found.push_back(
          {config_name(kernel.tile, option), rank(machine, kernel.tile, kernel.shared_bytes, work, option)});
    }
  }
  return names_by_rank(std::move(found));
}

std::string can_implement(const ConvProblem& problem, const std::string& text) {
  const std::string reason = why_not_gather(problem);
  if (!reason.empty()) return reason;
  const Geometry geometry(problem);
  const auto& kernels = candidates_of(problem, geometry);
  const std::optional<Config> config = parse_config(kernels, text);
  if (!config)
    return "there is no such configuration" + std::string(geometry.is_narrow() ? " for unaligned pixels" : "");
  const Kernel<GatherParameters>& kernel = kernels[config->tile];
  const int most = Machine::of(problem.target).block_shared_bytes;
  if (kernel.shared_bytes > most) {
    return "needs " + std::to_string(kernel.shared_bytes) + " bytes of shared memory, a block has " +
           std::to_string(most);
  }
  if (geometry.workspace_bytes(config->splits) > kMostWorkspaceBytes) {
    return std::to_string(config->splits) + " splits would take more than 256 MiB of workspace";
  }
  GatherParameters parameters{};
  if (lay_out_tiles(parameters, geometry, kernel.tile, problem.groups) * config->splits > INT32_MAX)
    return "2^31 blocks or more";
  return "";
}

// A problem and a tile made ready: what is launched once pointers are there.
class GatherLaunch {
 public:
  GatherLaunch(const ConvProblem& problem, const Kernel<GatherParameters>& kernel,
               const Kernel<GatherParameters>& narrow, int splits)
      : problem_(problem),
        geometry_(problem),
        kernel_(kernel),
        narrow_(narrow),
        splits_(splits),
        parameters_(parameters_for(problem, geometry_, kernel.tile, splits)),
        narrow_parameters_(parameters_for(problem, geometry_, narrow.tile, splits)),
        operands_(problem, geometry_, workspace_),
        allows_vectors_(allows_vectors(problem, geometry_)) {
    partial_at_ = workspace_.take(geometry_.partial_bytes(splits));
  }

  int64_t workspace_bytes() const { return workspace_.bytes(); }
  const Geometry& geometry() const { return geometry_; }

  void operator()(const LaunchArguments& arguments) const {
    const auto [x, w, y, bias, residual] = arguments.pointers;
    auto* workspace = static_cast<unsigned char*>(arguments.workspace);
    const GatherOperands::Ready ready = operands_(geometry_.transposed ? y : x, w, arguments);
    // Tensors that begin at an odd address have their own kernel, too.
    const bool narrow = ready.piece_bytes < 16;
    GatherParameters parameters = narrow ? narrow_parameters_ : parameters_;
    parameters.source = ready.source;
    parameters.piece_bytes = ready.piece_bytes;
    parameters.weights = ready.weights;
    OutputParameters& out = parameters.out;
    out.output = geometry_.transposed ? x : y;
    out.bias = problem_.has_bias ? bias : nullptr;
    out.residual = problem_.has_residual ? residual : nullptr;
    out.partial = splits_ > 1 ? reinterpret_cast<float*>(workspace + partial_at_) : nullptr;
    out.vector_access = allows_vectors_ && is_aligned(out.output) && is_aligned(out.residual);
    launch(parameters, narrow ? narrow_ : kernel_, ready, arguments);
    if (splits_ > 1) reduce(parameters, arguments);
  }

 private:
  void launch(const GatherParameters& parameters, const Kernel<GatherParameters>& kernel,
              const GatherOperands::Ready& ready, const LaunchArguments& arguments) const {
    const int element = geometry_.element;
    const int64_t blocks = int64_t{parameters.tiles_of_split.divisor()} * splits_;
    const bool split = parameters.out.partial != nullptr;
    launch_kernel({geometry_.transposed ? "mma_dgrad" : "mma_fprop", static_cast<unsigned>(blocks),
                   32 * kernel.tile.warps(), kernel.shared_bytes, kernel.launch_bound},
                  kernel.function, parameters,
                  {{geometry_.transposed ? "dy" : "x", ready.source, ready.source_bytes},
                   {"w", ready.weights, ready.weight_bytes},
                   {geometry_.transposed ? "dx" : "y", split ? nullptr : parameters.out.output,
                    bytes_of(geometry_.output, element), true},
                   {"bias", parameters.out.bias, geometry_.output.sizes[1] * element},
                   {"residual", parameters.out.residual, bytes_of(problem_.residual, element)},
                   {"partial", parameters.out.partial, geometry_.partial_bytes(splits_), true}},
                  arguments.stream);
  }

  void reduce(const GatherParameters& gather, const LaunchArguments& arguments) const {
    ReduceParameters parameters{};
    parameters.out = gather.out;
    parameters.splits = splits_;
    const int64_t chunks = geometry_.partial_pitch * geometry_.element / 16;
    parameters.items = geometry_.pixels() * chunks;
    parameters.chunks = FastDivider<uint64_t>(chunks);
    parameters.height = FastDivider<uint64_t>(geometry_.output.sizes[2]);
    parameters.width = FastDivider<uint64_t>(geometry_.output.sizes[3]);
    parameters.output_strides = gather.output_strides;
    parameters.residual_strides = gather.residual_strides;
    parameters.channels = gather.output_channels;
    parameters.channel_pitch = FastDivider<uint32_t>(static_cast<uint32_t>(geometry_.partial_pitch / problem_.groups));
    launch_reduce(problem_.dtype, parameters, gather.out.partial, geometry_.partial_bytes(splits_), geometry_.output,
                  arguments, problem_.has_residual ? &problem_.residual : nullptr);
  }

  const ConvProblem problem_;
  const Geometry geometry_;
  const Kernel<GatherParameters> kernel_, narrow_;
  const int splits_;
  const GatherParameters parameters_, narrow_parameters_;
  Workspace workspace_;
  const GatherOperands operands_;
  const bool allows_vectors_;
  int64_t partial_at_;
};

Prepared prepare(const ConvProblem& problem, const std::string& text) {
  const Geometry geometry(problem);
  const auto& kernels = candidates_of(problem, geometry);
  const Config config = *parse_config(kernels, text);
  const Kernel<GatherParameters>& kernel = kernels[config.tile];
  auto launch =
      std::make_shared<GatherLaunch>(problem, kernel, kernels_of<GatherParameters>(problem).narrow[0], config.splits);
  const Work work = work_of(problem, geometry, kernel.tile);
  const Machine machine = Machine::of(problem.target);
  Prepared prepared;
  Description& description = prepared.description;
  description.blocks = static_cast<unsigned>(work.blocks * config.splits);
  description.threads = 32 * kernel.tile.warps();
  description.shared_bytes = kernel.shared_bytes;
  description.workspace_bytes = launch->workspace_bytes();
  description.flops = 2 * problem.y.count() * problem.w.sizes[1] * problem.w.sizes[2] * problem.w.sizes[3];
  description.compulsory_bytes =
      (problem.x.count() + problem.w.count() + problem.y.count() + problem.residual.count()) * geometry.element;
  description.predicted_seconds = predict_seconds(machine, kernel.tile, kernel.shared_bytes, work, config.splits);
  description.choices = {
      {"tile_rows", kernel.tile.rows},
      {"tile_columns", kernel.tile.columns},
      {"tile_depth", kernel.tile.depth},
      {"stages", kernel.tile.stages},
      {"splits", config.splits},
      {"phases", geometry.rows.phases * geometry.columns.phases},
      {"copy_bytes", geometry.piece_bytes == 0 ? 16 : geometry.piece_bytes},
      {"converts_layout", geometry.piece_bytes == 0},
      {"repacks_weights", !geometry.weights_in_place},
      {"last_wave_percent",
       static_cast<int64_t>(100 * last_wave_efficiency(work.blocks * config.splits, machine.multiprocessors))},
  };
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvProblem> mma_fprop{
    "mma_fprop", "implicit GEMM on tensor cores (mma.sync, cp.async), float16, bfloat16, float32 by TF32 or split TF32",
    mma::configs, mma::can_implement, mma::prepare};
const KernelFamily<ConvProblem> mma_dgrad{
    "mma_dgrad", "implicit GEMM on tensor cores, a dense product for each residue of the stride, in one launch",
    mma::configs, mma::can_implement, mma::prepare};

}  // namespace fastconv
