// The families mma_fprop and mma_dgrad.
#include <algorithm>
#include <memory>

#include "launch/image_parts.h"
#include "launch/mma_gather.h"

namespace fastconv {
namespace mma {

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

// Where the results go. The product's own output may be larger: see Geometry.
const Operand& stored_output(const ConvProblem& problem) {
  return problem.pass == ConvPass::dgrad ? problem.x : problem.y;
}

// Chunks of columns can be loaded and stored whole, if the pointers are aligned.
bool allows_vectors(const ConvProblem& problem, const Geometry& geometry) {
  const auto whole = [&](const Operand& operand) {
    return operand.strides[1] == 1 && piece_bytes_of(operand, problem.groups, geometry.element) == 16;
  };
  return whole(stored_output(problem)) && (!problem.has_residual || whole(problem.residual));
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
  work.memory_bytes = elements * geometry.element;
  work.partial_elements = static_cast<double>(geometry.pixels()) * geometry.partial_pitch;
  work.always_adds_parts = geometry.is_folded;
  work.extra_launches = !geometry.weights_in_place;
  work.row_copy = kGatherCopies.of(geometry.is_narrow(), geometry.piece_bytes == 0 ? 16 : geometry.piece_bytes);
  work.column_copy = kGatherCopies.of(geometry.is_narrow(), 16);
  add_conversion(work, problem, geometry, stored_bytes(problem));
  return work;
}

const std::vector<Kernel<GatherParameters>>& candidates_of(const ConvProblem& problem, const Geometry& geometry) {
  const KernelSet<GatherParameters>& kernels = kernels_of<GatherParameters>(problem);
  return geometry.is_narrow() ? kernels.narrow : kernels.tiles;
}

std::vector<std::string> configs(const ConvProblem& given) {
  const ConvProblem whole = of_pixels_that_are_read(given);
  if (!why_not_gather(whole).empty()) return {""};
  const ConvProblem problem = gather_part_of(whole);
  const Geometry geometry(problem);
  return ranked_configs(problem.target, candidates_of(problem, geometry), geometry.most_splits(),
                        [&](const Tile& tile) { return work_of(problem, geometry, tile); });
}

std::string can_implement(const ConvProblem& given, const std::string& text) {
  const ConvProblem whole = of_pixels_that_are_read(given);
  const std::string reason = why_not_gather(whole);
  if (!reason.empty()) return reason;
  const ConvProblem problem = gather_part_of(whole);
  const Geometry geometry(problem);
  const auto chosen = choose(problem.target, candidates_of(problem, geometry), geometry.is_narrow(), text);
  if (!chosen.reason.empty()) return chosen.reason;
  if (geometry.workspace_bytes(chosen.splits) > problem.most_workspace_bytes) {
    return too_much_workspace(problem, std::to_string(chosen.splits) + " splits");
  }
  GatherParameters parameters{};
  const int64_t blocks = lay_out_tiles(parameters, geometry, chosen.kernel->tile, problem.groups);
  return blocks * chosen.splits > INT32_MAX ? "2^31 blocks or more" : "";
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
    const bool has_partial_sums = geometry_.has_partial_sums(splits_);
    out.partial = has_partial_sums ? reinterpret_cast<float*>(workspace + partial_at_) : nullptr;
    out.vector_access = allows_vectors_ && is_aligned(out.output) && is_aligned(out.residual);
    launch(parameters, narrow ? narrow_ : kernel_, ready, arguments);
    if (has_partial_sums) reduce(parameters, arguments);
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
    parameters.is_folded = geometry_.is_folded;
    parameters.padded_rows = PaddedAxis<int>::of(problem_, 0);
    parameters.padded_columns = PaddedAxis<int>::of(problem_, 1);
    const Operand& output = stored_output(problem_);
    const int64_t chunks = geometry_.partial_pitch * geometry_.element / 16;
    parameters.items = output.sizes[0] * output.sizes[2] * output.sizes[3] * chunks;
    parameters.chunks = FastDivider<uint64_t>(chunks);
    parameters.height = FastDivider<uint64_t>(output.sizes[2]);
    parameters.width = FastDivider<uint64_t>(output.sizes[3]);
    parameters.output_strides = gather.output_strides;
    parameters.residual_strides = gather.residual_strides;
    parameters.channels = gather.output_channels;
    parameters.channel_pitch = FastDivider<uint32_t>(static_cast<uint32_t>(geometry_.partial_pitch / problem_.groups));
    launch_reduce(problem_.dtype, parameters, gather.out.partial, geometry_.partial_bytes(splits_), output, arguments,
                  problem_.has_residual ? &problem_.residual : nullptr);
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

Prepared prepare(const ConvProblem& given, const std::string& text) {
  const ConvProblem whole = of_pixels_that_are_read(given);
  const ConvProblem problem = gather_part_of(whole);
  const Geometry geometry(problem);
  const auto chosen = choose(problem.target, candidates_of(problem, geometry), geometry.is_narrow(), text);
  const Kernel<GatherParameters>& kernel = *chosen.kernel;
  // Of a problem that is aligned, for tensors that are not.
  const auto& narrow = geometry.is_narrow() ? kernel : kernels_of<GatherParameters>(problem).narrow[0];
  const auto step = [&](const Operand& operand) { return operand.strides[0] * geometry.element; };
  const std::array<int64_t, 5> steps{step(whole.x), 0, step(whole.y), 0, whole.has_residual ? step(whole.residual) : 0};
  const auto launch = std::make_shared<ImageParts<GatherLaunch>>(
      whole.x.sizes[0], problem.x.sizes[0], steps,
      [&](int64_t images) { return GatherLaunch(with_images(whole, images), kernel, narrow, chosen.splits); });
  Prepared prepared;
  prepared.description = describe(whole, kernel, work_of(problem, geometry, kernel.tile), chosen.splits,
                                  {{"splits", chosen.splits},
                                   {"phases", geometry.rows.phases * geometry.columns.phases},
                                   {"copy_bytes", geometry.copy_bytes()},
                                   {"converts_layout", geometry.piece_bytes == 0},
                                   {"repacks_weights", !geometry.weights_in_place},
                                   {"folds_padding", geometry.is_folded},
                                   {"parts", launch->count()}});
  prepared.description.workspace_bytes = launch->first().workspace_bytes();
  prepared.description.predicted_seconds *= static_cast<double>(launch->count());
  prepared.packing = launch->first().packing();
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvProblem> mma_fprop{
    "mma_fprop",
    "implicit GEMM on tensor cores (mma.sync, cp.async), float16, bfloat16, float32 by TF32 or split TF32",
    mma::configs,
    mma::can_implement,
    mma::prepare,
    true};
const KernelFamily<ConvProblem> mma_dgrad{
    "mma_dgrad",  "implicit GEMM on tensor cores, a dense product for each residue of the stride, in one launch",
    mma::configs, mma::can_implement,
    mma::prepare, true};

}  // namespace fastconv
