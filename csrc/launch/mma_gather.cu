// The families mma_fprop and mma_dgrad.
#include <algorithm>
#include <memory>
#include <numeric>

#include "launch/mma_gather.h"

namespace fastconv {
namespace mma {

// What one launch computes: as many images as can be turned to channels-last at a time, mostly all.
static ConvProblem part_of(const ConvProblem& problem) {
  return with_images(problem, images_at_once(problem, Geometry(problem).converted_bytes));
}

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
  const ConvProblem part = part_of(problem);
  if (part.x.sizes[0] == 0) return too_much_workspace(problem, "turning an image to channels-last");
  if (Geometry(part).workspace_bytes(1) > problem.most_workspace_bytes) {
    return too_much_workspace(problem, "repacking the weights");
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

GatherOperands::GatherOperands(const ConvProblem& problem, const Geometry& geometry, Workspace& workspace)
    : problem_(problem), geometry_(geometry), repack_(repack_for(problem, geometry)) {
  workspace.take(geometry.packed_bytes);  // first, because packed weights may be elsewhere
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
    ready.weights = arguments.packed_weights;
    ready.weight_bytes = geometry_.packed_bytes;
    if (ready.weights == nullptr) {
      pack(w, workspace, arguments.stream);
      ready.weights = workspace;
    }
  }
  return ready;
}

void GatherOperands::pack(const void* w, void* packed, const Stream& stream) const {
  RepackParameters repack = repack_;
  repack.source = w;
  repack.destination = packed;
  launch_repack(problem_.dtype, repack, bytes_of(problem_.w, geometry_.element), geometry_.packed_bytes, stream);
}

Packing GatherOperands::packing() const {
  if (geometry_.weights_in_place) return {};
  const std::string key(reinterpret_cast<const char*>(&repack_), sizeof(repack_));
  const GatherOperands operands = *this;
  return {geometry_.packed_bytes, converted_at_, key,
          [operands](const void* w, void* packed, const Stream& stream) { operands.pack(w, packed, stream); }};
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

std::vector<std::string> configs(const ConvProblem& whole) {
  if (!why_not_gather(whole).empty()) return {""};
  const ConvProblem problem = part_of(whole);
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

std::string can_implement(const ConvProblem& whole, const std::string& text) {
  const std::string reason = why_not_gather(whole);
  if (!reason.empty()) return reason;
  const ConvProblem problem = part_of(whole);
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
  if (geometry.workspace_bytes(config->splits) > problem.most_workspace_bytes) {
    return too_much_workspace(problem, std::to_string(config->splits) + " splits");
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
  Packing packing() const { return operands_.packing(); }

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

// The images of a problem in parts, one after another in the same workspace: one part, but where turning all of them to
// channels-last would take too much.
class GatherParts {
 public:
  GatherParts(const ConvProblem& problem, const Kernel<GatherParameters>& kernel,
              const Kernel<GatherParameters>& narrow, int splits)
      : problem_(problem), images_(part_of(problem).x.sizes[0]) {
    parts_.emplace_back(with_images(problem, images_), kernel, narrow, splits);
    const int64_t rest = problem.x.sizes[0] % images_;
    if (rest > 0) parts_.emplace_back(with_images(problem, rest), kernel, narrow, splits);
  }

  // The first part is the largest.
  int64_t workspace_bytes() const { return parts_[0].workspace_bytes(); }
  Packing packing() const { return parts_[0].packing(); }
  int64_t count() const { return divide_up(problem_.x.sizes[0], images_); }

  void operator()(LaunchArguments arguments) const {
    const int element = size_of(problem_.dtype);
    for (int64_t image = 0; image < problem_.x.sizes[0]; image += images_) {
      const bool is_rest = problem_.x.sizes[0] - image < images_;
      parts_[is_rest ? 1 : 0](arguments);
      if (is_rest) return;
      // The weights stay packed at the beginning of the workspace.
      if (arguments.packed_weights == nullptr && packing().bytes > 0) arguments.packed_weights = arguments.workspace;
      auto& [x, w, y, bias, residual] = arguments.pointers;
      const auto advance = [&](void*& pointer, const Operand& operand) {
        if (pointer != nullptr) pointer = static_cast<unsigned char*>(pointer) + images_ * operand.strides[0] * element;
      };
      advance(x, problem_.x);
      advance(y, problem_.y);
      if (problem_.has_residual) advance(residual, problem_.residual);
    }
  }

 private:
  const ConvProblem problem_;
  const int64_t images_;
  std::vector<GatherLaunch> parts_;
};

Prepared prepare(const ConvProblem& whole, const std::string& text) {
  const ConvProblem problem = part_of(whole);
  const Geometry geometry(problem);
  const auto& kernels = candidates_of(problem, geometry);
  const Config config = *parse_config(kernels, text);
  const Kernel<GatherParameters>& kernel = kernels[config.tile];
  // Of a problem that is aligned, for tensors that are not.
  const auto& narrow = geometry.is_narrow() ? kernel : kernels_of<GatherParameters>(problem).narrow[0];
  auto launch = std::make_shared<GatherParts>(whole, kernel, narrow, config.splits);
  const Work work = work_of(problem, geometry, kernel.tile);
  const Machine machine = Machine::of(problem.target);
  Prepared prepared;
  Description& description = prepared.description;
  description.blocks = static_cast<unsigned>(work.blocks * config.splits);
  description.threads = 32 * kernel.tile.warps();
  description.shared_bytes = kernel.shared_bytes;
  description.workspace_bytes = launch->workspace_bytes();
  description.flops = whole.flops();
  description.compulsory_bytes = whole.compulsory_bytes();
  description.predicted_seconds = static_cast<double>(launch->count()) *
                                  predict_seconds(machine, kernel.tile, kernel.shared_bytes, work, config.splits);
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
      {"parts", launch->count()},
      {"last_wave_percent",
       static_cast<int64_t>(100 * last_wave_efficiency(work.blocks * config.splits, machine.multiprocessors))},
  };
  prepared.packing = launch->packing();
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
