// The family mma_wgrad.
#include <algorithm>
#include <memory>

#include "launch/mma_conv.h"

namespace fastconv {
namespace mma {
namespace {

// The problem in the words of the kernel. filters and channels are of a group.
struct Geometry {
  int element;
  int64_t filters, channels, channel_pitch, taps, pixels;
  int gradient_piece_bytes, source_piece_bytes;  // of the operands as they are; 0: converted
  int64_t gradient_bytes, source_bytes;          // of the converted ones

  explicit Geometry(const ConvProblem& problem)
      : element(size_of(problem.dtype)),
        filters(problem.w.sizes[0] / problem.groups),
        channels(problem.w.sizes[1]),
        channel_pitch(round_up(channels, 16 / element)),
        taps(problem.w.sizes[2] * problem.w.sizes[3]),
        pixels(problem.y.sizes[0] * problem.y.sizes[2] * problem.y.sizes[3]),
        gradient_piece_bytes(piece_bytes_of(problem.y, problem.groups, element)),
        source_piece_bytes(piece_bytes_of(problem.x, problem.groups, element)),
        gradient_bytes(gradient_piece_bytes == 0 ? channels_last_bytes(problem.y, problem.groups, element) : 0),
        source_bytes(source_piece_bytes == 0 ? channels_last_bytes(problem.x, problem.groups, element) : 0) {}

  int64_t columns() const { return taps * channel_pitch; }
  int64_t partial_elements(const ConvProblem& problem) const { return problem.w.sizes[0] * columns(); }
  int64_t partial_bytes(const ConvProblem& problem, int splits) const {
    return splits > 1 ? 4 * splits * (partial_elements(problem) + problem.w.sizes[0]) : 0;
  }
  int64_t workspace_bytes(const ConvProblem& problem, int splits) const {
    return gradient_bytes + source_bytes + partial_bytes(problem, splits) + 1024;
  }
  bool is_narrow() const {
    return (gradient_piece_bytes != 0 && gradient_piece_bytes < 16) ||
           (source_piece_bytes != 0 && source_piece_bytes < 16);
  }
  int most_splits(const ConvProblem& problem) const {
    const int64_t left = kMostWorkspaceBytes - workspace_bytes(problem, 1);
    return static_cast<int>(std::clamp<int64_t>(left / (4 * (partial_elements(problem) + problem.w.sizes[0])), 1, 512));
  }
};

std::string why_not(const ConvProblem& problem) {
  std::string reason = why_not_any(problem);
  if (!reason.empty()) return reason;
  const Geometry geometry(problem);
  if (geometry.columns() > INT32_MAX / 2) return "filters of 2^30 elements or more";
  if (geometry.workspace_bytes(problem, 1) > kMostWorkspaceBytes) {
    return "turning the operands to channels-last would take more than 256 MiB of workspace";
  }
  return "";
}

const std::vector<Kernel<WgradParameters>>& candidates_of(const ConvProblem& problem, const Geometry& geometry) {
  const KernelSet<WgradParameters>& kernels = kernels_of<WgradParameters>(problem);
  return geometry.is_narrow() ? kernels.narrow : kernels.tiles;
}

int64_t blocks_of(const ConvProblem& problem, const Geometry& geometry, const Tile& tile) {
  return problem.groups * divide_up(geometry.filters, tile.rows) * divide_up(geometry.columns(), tile.columns);
}

Work work_of(const ConvProblem& problem, const Geometry& geometry, const Tile& tile) {
  Work work{};
  work.blocks = blocks_of(problem, geometry, tile);
  work.slices = static_cast<double>(divide_up(geometry.pixels, tile.depth));
  work.element_size = geometry.element;
  work.precision = precision_of(problem);
  const double elements = problem.x.count() + problem.w.count() + problem.y.count();
  work.memory_bytes = elements * geometry.element + 2.0 * (geometry.gradient_bytes + geometry.source_bytes);
  work.partial_elements = static_cast<double>(geometry.partial_elements(problem));
  work.extra_launches = (geometry.gradient_piece_bytes == 0) + (geometry.source_piece_bytes == 0);
  return work;
}

std::vector<std::string> configs(const ConvProblem& problem) {
  if (!why_not(problem).empty()) return {""};
  const Geometry geometry(problem);
  const Machine machine = Machine::of(problem.target);
  std::vector<Candidate> found;
  for (const auto& kernel : candidates_of(problem, geometry)) {
    const Work work = work_of(problem, geometry, kernel.tile);
    const int splits = best_splits(machine, kernel.tile, kernel.shared_bytes, work, geometry.most_splits(problem));
    for (int option : split_options(splits, geometry.most_splits(problem))) {
      found.push_back(
          {config_name(kernel.tile, option), rank(machine, kernel.tile, kernel.shared_bytes, work, option)});
    }
  }
  return names_by_rank(std::move(found));
}

std::string can_implement(const ConvProblem& problem, const std::string& text) {
  const std::string reason = why_not(problem);
  if (!reason.empty()) return reason;
  const Geometry geometry(problem);
  const auto& kernels = candidates_of(problem, geometry);
  const std::optional<Config> config = parse_config(kernels, text);
  if (!config)
    return "there is no such configuration" + std::string(geometry.is_narrow() ? " for unaligned pixels" : "");
  const Kernel<WgradParameters>& kernel = kernels[config->tile];
  const int most = Machine::of(problem.target).block_shared_bytes;
  if (kernel.shared_bytes > most) {
    return "needs " + std::to_string(kernel.shared_bytes) + " bytes of shared memory, a block has " +
           std::to_string(most);
  }
  if (geometry.workspace_bytes(problem, config->splits) > kMostWorkspaceBytes) {
    return std::to_string(config->splits) + " splits would take more than 256 MiB of workspace";
  }
  if (divide_up(geometry.pixels, kernel.tile.depth) * (config->splits + 1) > INT32_MAX) return "2^31 slices or more";
  if (blocks_of(problem, geometry, kernel.tile) * config->splits > INT32_MAX) return "2^31 blocks or more";
  return "";
}

WgradParameters parameters_for(const ConvProblem& problem, const Geometry& geometry, const Tile& tile, int splits) {
  WgradParameters parameters{};
  const auto strides_of = [&](const Operand& operand, int piece_bytes) {
    return pixel_strides(piece_bytes == 0 ? as_channels_last(operand, problem.groups, geometry.element) : operand);
  };
  parameters.gradient_strides = strides_of(problem.y, geometry.gradient_piece_bytes);
  parameters.source_strides = strides_of(problem.x, geometry.source_piece_bytes);
  parameters.gradient_group_step = static_cast<int>(
      geometry.gradient_piece_bytes == 0 ? round_up(geometry.filters, 16 / geometry.element) : geometry.filters);
  parameters.source_group_step =
      static_cast<int>(geometry.source_piece_bytes == 0 ? geometry.channel_pitch : geometry.channels);
  parameters.filter_stride = problem.w.strides[0];
  parameters.tap_row_stride = problem.w.strides[2];
  parameters.tap_column_stride = problem.w.strides[3];
  parameters.source_height = static_cast<int>(problem.x.sizes[2]);
  parameters.source_width = static_cast<int>(problem.x.sizes[3]);
  parameters.stride_height = problem.stride[0];
  parameters.stride_width = problem.stride[1];
  parameters.pad_top = problem.padding[0];
  parameters.pad_left = problem.padding[2];
  parameters.dilation_height = problem.dilation[0];
  parameters.dilation_width = problem.dilation[1];
  parameters.groups = problem.groups;
  parameters.filters = static_cast<int>(geometry.filters);
  parameters.channels = static_cast<int>(geometry.channels);
  parameters.taps = static_cast<int>(geometry.taps);
  parameters.pixels = static_cast<int>(geometry.pixels);
  parameters.iterations = static_cast<int>(divide_up(geometry.pixels, tile.depth));
  const auto divider = [](int64_t value) { return FastDivider<uint32_t>(static_cast<uint32_t>(value)); };
  parameters.output_height = divider(problem.y.sizes[2]);
  parameters.output_width = divider(problem.y.sizes[3]);
  parameters.channel_pitch = divider(geometry.channel_pitch);
  parameters.taps_across = divider(problem.w.sizes[3]);
  const int64_t row_tiles = divide_up(geometry.filters, tile.rows);
  const int64_t column_tiles = divide_up(geometry.columns(), tile.columns);
  parameters.row_tiles = divider(row_tiles);
  parameters.tiles_of_group = divider(row_tiles * column_tiles);
  parameters.tiles_of_split = divider(row_tiles * column_tiles * problem.groups);
  parameters.splits = divider(splits);

  OutputParameters& out = parameters.out;
  out.column_stride = problem.w.strides[1];
  out.activation = Activation::identity;
  out.partial_pitch = geometry.columns();
  out.partial_split_stride = geometry.partial_elements(problem);
  return parameters;
}

// Chunks of channels can be stored whole, if the pointer is aligned.
bool allows_vectors(const ConvProblem& problem, const Geometry& geometry) {
  const auto& [sizes, strides] = problem.w;
  const auto whole = [&](int dimension) {
    return sizes[dimension] == 1 || strides[dimension] * geometry.element % 16 == 0;
  };
  return strides[1] == 1 && whole(0) && whole(2) && whole(3);
}

// A problem and a tile made ready: what is launched once pointers are there.
class WgradLaunch {
 public:
  WgradLaunch(const ConvProblem& problem, const Kernel<WgradParameters>& kernel, const Kernel<WgradParameters>& narrow,
              int splits)
      : problem_(problem),
        geometry_(problem),
        kernel_(kernel),
        narrow_(narrow),
        splits_(splits),
        parameters_(parameters_for(problem, geometry_, kernel.tile, splits)),
        narrow_parameters_(parameters_for(problem, geometry_, narrow.tile, splits)),
        allows_vectors_(allows_vectors(problem, geometry_)) {
    gradient_at_ = workspace_.take(geometry_.gradient_bytes);
    source_at_ = workspace_.take(geometry_.source_bytes);
    partial_at_ = workspace_.take(geometry_.partial_bytes(problem, splits));
  }

  int64_t workspace_bytes() const { return workspace_.bytes(); }

  void operator()(const LaunchArguments& arguments) const {
    const auto [x, w, y, bias_gradient, unused] = arguments.pointers;
    auto* workspace = static_cast<unsigned char*>(arguments.workspace);
    const Source gradient = ready(problem_.y, geometry_.gradient_piece_bytes, y, workspace + gradient_at_, arguments);
    const Source source = ready(problem_.x, geometry_.source_piece_bytes, x, workspace + source_at_, arguments);
    // Tensors that begin at an odd address have their own kernel, too.
    const bool narrow = gradient.piece_bytes < 16 || source.piece_bytes < 16;
    WgradParameters parameters = narrow ? narrow_parameters_ : parameters_;
    parameters.gradient = gradient.pointer;
    parameters.gradient_piece_bytes = gradient.piece_bytes;
    parameters.source = source.pointer;
    parameters.source_piece_bytes = source.piece_bytes;
    OutputParameters& out = parameters.out;
    out.output = w;
    out.vector_access = allows_vectors_ && is_aligned(w);
    if (splits_ > 1) {
      out.partial = reinterpret_cast<float*>(workspace + partial_at_);
      if (problem_.has_bias) parameters.partial_bias = out.partial + splits_ * out.partial_split_stride;
    } else if (problem_.has_bias) {
      parameters.bias_gradient = bias_gradient;
    }
    launch(parameters, narrow ? narrow_ : kernel_, arguments);
    if (splits_ > 1) reduce(parameters, problem_.has_bias ? bias_gradient : nullptr, arguments);
  }

 private:
  struct Source {
    const void* pointer;
    int piece_bytes;
  };

  Source ready(const Operand& operand, int piece_bytes, const void* pointer, void* converted,
               const LaunchArguments& arguments) const {
    if (piece_bytes != 0) return {pointer, piece_bytes_of(pointer, piece_bytes)};
    launch_conversion(problem_, operand, pointer, converted, arguments.stream);
    return {converted, 16};
  }

  void launch(const WgradParameters& parameters, const Kernel<WgradParameters>& kernel,
              const LaunchArguments& arguments) const {
    const int element = geometry_.element;
    const bool split = parameters.out.partial != nullptr;
    const auto bytes = [&](const Operand& operand, int64_t converted) {
      return converted > 0 ? converted : bytes_of(operand, element);
    };
    launch_kernel({"mma_wgrad", parameters.tiles_of_split.divisor() * splits_, 32 * kernel.tile.warps(),
                   kernel.shared_bytes, kernel.launch_bound},
                  kernel.function, parameters,
                  {{"dy", parameters.gradient, bytes(problem_.y, geometry_.gradient_bytes)},
                   {"x", parameters.source, bytes(problem_.x, geometry_.source_bytes)},
                   {"dw", split ? nullptr : parameters.out.output, bytes_of(problem_.w, element), true},
                   {"bias_gradient", parameters.bias_gradient, problem_.w.sizes[0] * element, true},
                   {"partial", parameters.out.partial, geometry_.partial_bytes(problem_, splits_), true}},
                  arguments.stream);
  }

  void reduce(const WgradParameters& wgrad, void* bias_gradient, const LaunchArguments& arguments) const {
    ReduceParameters parameters{};
    parameters.out = wgrad.out;
    parameters.splits = splits_;
    const int64_t chunks = geometry_.columns() * geometry_.element / 16;
    parameters.items = problem_.w.sizes[0] * chunks;
    parameters.chunks = FastDivider<uint64_t>(chunks);
    parameters.output_strides = {wgrad.filter_stride, 0, 0};
    parameters.columns_are_taps = true;
    parameters.channels = wgrad.channels;
    parameters.channel_pitch = wgrad.channel_pitch;
    parameters.taps_across = wgrad.taps_across;
    parameters.tap_row_stride = wgrad.tap_row_stride;
    parameters.tap_column_stride = wgrad.tap_column_stride;
    parameters.partial_bias = wgrad.partial_bias;
    parameters.bias_gradient = bias_gradient;
    parameters.bias_count = problem_.w.sizes[0];
    launch_reduce(problem_.dtype, parameters, wgrad.out.partial, geometry_.partial_bytes(problem_, splits_), problem_.w,
                  arguments, nullptr);
  }

  const ConvProblem problem_;
  const Geometry geometry_;
  const Kernel<WgradParameters> kernel_, narrow_;
  const int splits_;
  const WgradParameters parameters_, narrow_parameters_;
  const bool allows_vectors_;
  Workspace workspace_;
  int64_t gradient_at_, source_at_, partial_at_;
};

Prepared prepare(const ConvProblem& problem, const std::string& text) {
  const Geometry geometry(problem);
  const auto& kernels = candidates_of(problem, geometry);
  const Config config = *parse_config(kernels, text);
  const Kernel<WgradParameters>& kernel = kernels[config.tile];
  const auto launch =
      std::make_shared<WgradLaunch>(problem, kernel, kernels_of<WgradParameters>(problem).narrow[0], config.splits);
  const Work work = work_of(problem, geometry, kernel.tile);
  const Machine machine = Machine::of(problem.target);
  Prepared prepared;
  Description& description = prepared.description;
  description.blocks = static_cast<unsigned>(work.blocks * config.splits);
  description.threads = 32 * kernel.tile.warps();
  description.shared_bytes = kernel.shared_bytes;
  description.workspace_bytes = launch->workspace_bytes();
  description.flops = 2 * problem.y.count() * geometry.channels * geometry.taps;
  description.compulsory_bytes = (problem.x.count() + problem.w.count() + problem.y.count()) * geometry.element;
  description.predicted_seconds = predict_seconds(machine, kernel.tile, kernel.shared_bytes, work, config.splits);
  description.choices = {
      {"tile_rows", kernel.tile.rows},
      {"tile_columns", kernel.tile.columns},
      {"tile_depth", kernel.tile.depth},
      {"stages", kernel.tile.stages},
      {"splits", config.splits},
      {"copy_bytes", geometry.is_narrow() ? std::min(geometry.gradient_piece_bytes, geometry.source_piece_bytes) : 16},
      {"converts_layout", geometry.gradient_piece_bytes == 0 || geometry.source_piece_bytes == 0},
      {"last_wave_percent",
       static_cast<int64_t>(100 * last_wave_efficiency(work.blocks * config.splits, machine.multiprocessors))},
  };
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvProblem> mma_wgrad{
    "mma_wgrad", "implicit GEMM over the output's pixels on tensor cores, split and added in order", mma::configs,
    mma::can_implement, mma::prepare};

}  // namespace fastconv
