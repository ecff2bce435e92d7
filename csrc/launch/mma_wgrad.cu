// The family mma_wgrad.
#include <algorithm>
#include <cmath>
#include <memory>

#include "launch/cache_parts.h"
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
  // Sums of one split that are stored apart, those of the bias gradient included.
  int64_t split_bytes(const ConvProblem& problem) const { return 4 * (partial_elements(problem) + problem.w.sizes[0]); }
  // parts: of the batch, which add to the same sums.
  int64_t partial_bytes(const ConvProblem& problem, int64_t splits, int64_t parts) const {
    return splits > 1 || parts > 1 ? splits * split_bytes(problem) : 0;
  }
  int64_t workspace_bytes(const ConvProblem& problem, int64_t splits, int64_t parts) const {
    return Workspace::size_of({gradient_bytes, source_bytes, partial_bytes(problem, splits, parts)});
  }
  // What a copy moves: whole chunks of what was converted.
  static int copied(int piece_bytes) { return piece_bytes == 0 ? 16 : piece_bytes; }
  int copy_bytes() const { return std::min(copied(gradient_piece_bytes), copied(source_piece_bytes)); }
  bool is_narrow() const { return copy_bytes() < 16; }
  int most_splits(const ConvProblem& problem) const {
    const int64_t left = problem.most_workspace_bytes - workspace_bytes(problem, 1, 1);
    return static_cast<int>(std::clamp<int64_t>(left / split_bytes(problem), 1, 512));
  }
};

StagedBatch staged_batch_of(const ConvProblem& problem, const Geometry& geometry) {
  const Machine machine = Machine::of(problem.target);
  StagedBatch batch;
  batch.images = problem.x.sizes[0];
  batch.launches = 1;
  for (const auto& [operand, converted] :
       {std::pair(&problem.x, geometry.source_bytes), std::pair(&problem.y, geometry.gradient_bytes)}) {
    batch.staged_bytes += static_cast<double>(converted);
    (converted > 0 ? batch.source_bytes : batch.other_bytes) += distinct_bytes(*operand, geometry.element);
    batch.launches += converted > 0;
  }
  batch.products = static_cast<double>(problem.flops()) / 2;
  batch.precision = precision_of(problem);
  // Blocks of 128 x 128, and as many splits as fill the device with them: there is no last wave.
  const double blocks =
      static_cast<double>(problem.groups * divide_up(geometry.filters, 128) * divide_up(geometry.columns(), 128));
  const double splits = std::ceil(machine.multiprocessors / blocks);
  batch.sums_bytes = splits * static_cast<double>(geometry.split_bytes(problem));
  return batch;
}

// The images that are turned to channels-last at a time, mostly all, and how many such parts there are. A part adds to
// the sums of those before it.
ConvProblem part_of(const ConvProblem& problem) {
  const Geometry geometry(problem);
  const int64_t most = images_at_once(problem, geometry.gradient_bytes + geometry.source_bytes);
  return with_images(problem, images_of_a_part(Machine::of(problem.target), staged_batch_of(problem, geometry), most));
}
int64_t parts_of(const ConvProblem& problem) {
  return divide_up(problem.x.sizes[0], part_of(problem).x.sizes[0]);
}

std::string why_not(const ConvProblem& problem) {
  std::string reason = why_not_any(problem);
  if (!reason.empty()) return reason;
  const Geometry geometry(problem);
  if (geometry.columns() > INT32_MAX / 2) return "filters of 2^30 elements or more";
  const ConvProblem part = part_of(problem);
  if (part.x.sizes[0] == 0) return too_much_workspace(problem, "turning an image to channels-last");
  if (Geometry(part).workspace_bytes(part, 1, parts_of(problem)) > problem.most_workspace_bytes) {
    return too_much_workspace(problem, "the sums of parts of the batch");
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

// Of one of so many parts.
Work work_of(const ConvProblem& problem, const Geometry& geometry, const Tile& tile, int64_t parts) {
  Work work{};
  work.blocks = blocks_of(problem, geometry, tile);
  work.slices = static_cast<double>(divide_up(geometry.pixels, tile.depth));
  work.element_size = geometry.element;
  work.precision = precision_of(problem);
  const double elements = problem.x.count() + problem.w.count() + problem.y.count();
  const StagedBatch batch = staged_batch_of(problem, geometry);
  const Machine machine = Machine::of(problem.target);
  const bool in_cache = batch.images <= images_in_cache(machine, batch);
  work.memory_bytes = elements * geometry.element - batch.source_bytes + (in_cache ? 0 : batch.staged_bytes);
  work.staging_seconds = batch.staged_bytes > 0 ? staging_seconds(machine, batch, in_cache) : 0;
  work.partial_elements = static_cast<double>(geometry.partial_elements(problem));
  work.always_adds_parts = parts > 1;
  work.extra_launches = (geometry.gradient_piece_bytes == 0) + (geometry.source_piece_bytes == 0);
  work.row_copy = kWgradCopies.of(geometry.is_narrow(), Geometry::copied(geometry.gradient_piece_bytes));
  work.column_copy = kWgradCopies.of(geometry.is_narrow(), Geometry::copied(geometry.source_piece_bytes));
  return work;
}

std::vector<std::string> configs(const ConvProblem& given) {
  const ConvProblem whole = of_pixels_that_are_read(given);
  if (!why_not(whole).empty()) return {""};
  const ConvProblem problem = part_of(whole);
  const Geometry geometry(problem);
  return ranked_configs(problem.target, candidates_of(problem, geometry), geometry.most_splits(problem),
                        [&](const Tile& tile) { return work_of(problem, geometry, tile, parts_of(whole)); });
}

std::string can_implement(const ConvProblem& given, const std::string& text) {
  const ConvProblem whole = of_pixels_that_are_read(given);
  const std::string reason = why_not(whole);
  if (!reason.empty()) return reason;
  const ConvProblem problem = part_of(whole);
  const Geometry geometry(problem);
  const auto chosen = choose(problem.target, candidates_of(problem, geometry), geometry.is_narrow(), text);
  if (!chosen.reason.empty()) return chosen.reason;
  if (geometry.workspace_bytes(problem, chosen.splits, parts_of(whole)) > problem.most_workspace_bytes) {
    return too_much_workspace(problem, std::to_string(chosen.splits) + " splits");
  }
  const Tile& tile = chosen.kernel->tile;
  if (divide_up(geometry.pixels, tile.depth) * (chosen.splits + 1) > INT32_MAX) return "2^31 slices or more";
  if (blocks_of(problem, geometry, tile) * chosen.splits > INT32_MAX) return "2^31 blocks or more";
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
  parameters.border = border_of(problem);
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
  const Operand& w = problem.w;
  const auto whole = [&](int dimension) {
    return w.sizes[dimension] == 1 || w.strides[dimension] * geometry.element % 16 == 0;
  };
  return w.strides[1] == 1 && whole(0) && whole(2) && whole(3);
}

// A problem and a tile made ready: what is launched once pointers are there.
class WgradLaunch {
 public:
  WgradLaunch(const ConvProblem& problem, const Kernel<WgradParameters>& kernel, const Kernel<WgradParameters>& narrow,
              int splits)
      : problem_(problem),
        kernel_(kernel),
        narrow_(narrow),
        splits_(splits),
        has_partial_sums_(splits > 1 || parts_of(problem) > 1),
        allows_vectors_(allows_vectors(problem, Geometry(problem))) {
    parts_.push_back(part_for(part_of(problem).x.sizes[0]));
    const int64_t rest = problem.x.sizes[0] % images();
    if (rest > 0) parts_.push_back(part_for(rest));
    const Geometry& geometry = parts_[0].geometry;
    gradient_at_ = workspace_.take(geometry.gradient_bytes);
    source_at_ = workspace_.take(geometry.source_bytes);
    partial_bytes_ = geometry.partial_bytes(problem, splits, count());
    partial_at_ = workspace_.take(partial_bytes_);
  }

  int64_t workspace_bytes() const { return workspace_.bytes(); }

  int64_t count() const { return divide_up(problem_.x.sizes[0], images()); }

  void operator()(const LaunchArguments& arguments) const {
    auto* workspace = static_cast<unsigned char*>(arguments.workspace);
    WgradParameters first{};
    for (int64_t part = 0; part < count(); ++part) {
      const bool is_rest = problem_.x.sizes[0] - part * images() < images();
      const WgradParameters used = launch_part(parts_[is_rest ? 1 : 0], part, workspace, arguments);
      if (part == 0) first = used;
    }
    if (has_partial_sums_) reduce(first, problem_.has_bias ? arguments.pointers[3] : nullptr, arguments);
  }

 private:
  // Some of the images.
  struct Part {
    ConvProblem problem;
    Geometry geometry;
    WgradParameters parameters, narrow_parameters;
  };

  Part part_for(int64_t images) const {
    const ConvProblem problem = with_images(problem_, images);
    const Geometry geometry(problem);
    return {problem, geometry, parameters_for(problem, geometry, kernel_.tile, splits_),
            parameters_for(problem, geometry, narrow_.tile, splits_)};
  }
  int64_t images() const { return parts_[0].problem.x.sizes[0]; }

  WgradParameters launch_part(const Part& part, int64_t number, unsigned char* workspace,
                              const LaunchArguments& arguments) const {
    const auto [x, w, y, bias_gradient, unused] = arguments.pointers;
    const auto images_of = [&](void* pointer, const Operand& operand) {
      return static_cast<unsigned char*>(pointer) + number * images() * operand.strides[0] * part.geometry.element;
    };
    const Source gradient = ready(part.problem, part.problem.y, part.geometry.gradient_piece_bytes,
                                  images_of(y, problem_.y), workspace + gradient_at_, arguments);
    const Source source = ready(part.problem, part.problem.x, part.geometry.source_piece_bytes,
                                images_of(x, problem_.x), workspace + source_at_, arguments);
    // Tensors that begin at an odd address have their own kernel, too.
    const bool narrow = gradient.piece_bytes < 16 || source.piece_bytes < 16;
    WgradParameters parameters = narrow ? part.narrow_parameters : part.parameters;
    parameters.gradient = gradient.pointer;
    parameters.gradient_piece_bytes = gradient.piece_bytes;
    parameters.source = source.pointer;
    parameters.source_piece_bytes = source.piece_bytes;
    OutputParameters& out = parameters.out;
    out.output = w;
    out.vector_access = allows_vectors_ && is_aligned(w);
    if (has_partial_sums_) {
      out.partial = reinterpret_cast<float*>(workspace + partial_at_);
      if (problem_.has_bias) parameters.partial_bias = out.partial + splits_ * out.partial_split_stride;
      parameters.adds_to_partial = number > 0;
    } else if (problem_.has_bias) {
      parameters.bias_gradient = bias_gradient;
    }
    launch(part, parameters, narrow ? narrow_ : kernel_, arguments);
    return parameters;
  }

  struct Source {
    const void* pointer;
    int piece_bytes;
  };

  Source ready(const ConvProblem& part, const Operand& operand, int piece_bytes, const void* pointer, void* converted,
               const LaunchArguments& arguments) const {
    if (piece_bytes != 0) return {pointer, piece_bytes_of(pointer, piece_bytes)};
    launch_conversion(part, operand, pointer, converted, arguments.stream);
    return {converted, 16};
  }

  void launch(const Part& part, const WgradParameters& parameters, const Kernel<WgradParameters>& kernel,
              const LaunchArguments& arguments) const {
    const Geometry& geometry = part.geometry;
    const int element = geometry.element;
    const bool split = parameters.out.partial != nullptr;
    const auto bytes = [&](const Operand& operand, int64_t converted) {
      return converted > 0 ? converted : bytes_of(operand, element);
    };
    launch_kernel({"mma_wgrad", parameters.tiles_of_split.divisor() * splits_, 32 * kernel.tile.warps(),
                   kernel.shared_bytes, kernel.launch_bound},
                  kernel.function, parameters,
                  {{"dy", parameters.gradient, bytes(part.problem.y, geometry.gradient_bytes)},
                   {"x", parameters.source, bytes(part.problem.x, geometry.source_bytes)},
                   {"dw", split ? nullptr : parameters.out.output, bytes_of(problem_.w, element), true},
                   {"bias_gradient", parameters.bias_gradient, problem_.w.sizes[0] * element, true},
                   {"partial", static_cast<unsigned char*>(arguments.workspace) + partial_at_, partial_bytes_, true}},
                  arguments.stream);
  }

  // wgrad: the parameters of the first part.
  void reduce(const WgradParameters& wgrad, void* bias_gradient, const LaunchArguments& arguments) const {
    const Geometry& geometry = parts_[0].geometry;
    ReduceParameters parameters{};
    parameters.out = wgrad.out;
    parameters.splits = splits_;
    const int64_t chunks = geometry.columns() * geometry.element / 16;
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
    launch_reduce(problem_.dtype, parameters, wgrad.out.partial, partial_bytes_, problem_.w, arguments, nullptr);
  }

  const ConvProblem problem_;
  const Kernel<WgradParameters> kernel_, narrow_;
  const int splits_;
  const bool has_partial_sums_;
  const bool allows_vectors_;
  std::vector<Part> parts_;  // one, or the repeated one and the rest
  Workspace workspace_;
  int64_t gradient_at_, source_at_, partial_at_, partial_bytes_;
};

Prepared prepare(const ConvProblem& given, const std::string& text) {
  const ConvProblem whole = of_pixels_that_are_read(given);
  const ConvProblem problem = part_of(whole);
  const Geometry geometry(problem);
  const auto chosen = choose(problem.target, candidates_of(problem, geometry), geometry.is_narrow(), text);
  const Kernel<WgradParameters>& kernel = *chosen.kernel;
  // Of a problem that is aligned, for tensors that are not.
  const auto& narrow = geometry.is_narrow() ? kernel : kernels_of<WgradParameters>(problem).narrow[0];
  const auto launch = std::make_shared<WgradLaunch>(whole, kernel, narrow, chosen.splits);
  Prepared prepared;
  const Work work = work_of(problem, geometry, kernel.tile, launch->count());
  prepared.description =
      describe(whole, kernel, work, chosen.splits,
               {{"splits", chosen.splits},
                {"copy_bytes", geometry.copy_bytes()},
                {"converts_layout", geometry.gradient_piece_bytes == 0 || geometry.source_piece_bytes == 0},
                {"parts", launch->count()}});
  prepared.description.workspace_bytes = launch->workspace_bytes();
  // The sums are added up once, after the last part.
  const double adding = adding_seconds(Machine::of(problem.target), work, chosen.splits);
  double& predicted = prepared.description.predicted_seconds;
  predicted = static_cast<double>(launch->count()) * (predicted - adding) + adding;
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvProblem> mma_wgrad{
    "mma_wgrad",  "implicit GEMM over the output's pixels on tensor cores, split and added in order",
    mma::configs, mma::can_implement,
    mma::prepare, true};

}  // namespace fastconv
