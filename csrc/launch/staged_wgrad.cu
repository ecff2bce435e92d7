#include "launch/staged_wgrad.h"

#include <memory>
#include <optional>

#include "launch/split_sum.h"
#include "launch/staged_conv_geometry.h"
#include "launch/staged_instructions.h"

namespace fastconv {
namespace staged {
namespace {

const std::vector<WgradKernel>& kernels_for(const ConvProblem& problem) {
  return mma::for_types_of(problem, [](auto element, auto precision) -> const std::vector<WgradKernel>& {
    return wgrad_kernels<decltype(element), precision()>();
  });
}

// Channels that the groups of 16 filters have.
int64_t channels_of_warp(const ConvProblem& problem) {
  const int64_t filters = problem.w.sizes[0] / problem.groups;
  return std::max<int64_t>(16 / filters, 1) * problem.w.sizes[1];
}

std::optional<WgradKernel> kernel_for(const ConvProblem& problem, bool by_words, int64_t terms) {
  std::optional<WgradKernel> found;
  for (const WgradKernel& one : kernels_for(problem)) {
    if (one.by_words != by_words) continue;
    if (by_words) {
      // The narrowest that holds all terms, else the widest.
      if (!found || found->terms < terms) found = one;
    } else if (one.taps == problem.w.sizes[2] * problem.w.sizes[3] && one.channels >= channels_of_warp(problem)) {
      if (!found) found = one;
    }
  }
  return found;
}

std::string why_not_grouped(const ConvProblem& problem) {
  const std::string reason = why_not_any(problem);
  if (!reason.empty()) return reason;
  if (problem.groups == 1) return "not grouped";
  const int64_t filters = problem.w.sizes[0] / problem.groups, channels = problem.w.sizes[1];
  const int64_t taps = problem.w.sizes[2] * problem.w.sizes[3];
  if (taps != 1 && taps != 9) return std::to_string(taps) + " taps; accepted are 1 and 9";
  if (filters < 2 || filters > 64 || 64 % filters != 0) {
    return "groups of " + std::to_string(filters) + " filters; accepted are 2, 4, 8, 16, 32 and 64";
  }
  if (channels_of_warp(problem) % 8 != 0 || !kernel_for(problem, false, 0)) {
    return "16 filters, or a group, have " + std::to_string(channels_of_warp(problem)) + " channels of " +
           std::to_string(channels) + " a group; accepted are multiples of 8 up to 16 or 32";
  }
  return "";
}

std::string why_not(const ConvProblem& problem, bool by_words) {
  return by_words ? why_not_stem(problem) : why_not_grouped(problem);
}

// A configuration ready but for the pointers.
struct WgradLaunch {
  Geometry geometry;
  WgradKernel kernel;
  WgradParameters parameters{};
  int64_t shared_bytes = 0, partial_bytes = 0, bias_bytes = 0;
  int parts = 1, splits = 1;
  double instructions = 0, seconds = 0;  // predicted; instructions of a tile

  WgradLaunch(const ConvProblem& problem, bool by_words, int width_log2) : geometry(problem, by_words) {
    const AxisPlan rows = axis_plans(problem, 0)[0], columns = axis_plans(problem, 1)[0];
    const int element = geometry.element;
    WgradParameters& p = parameters;
    lay_out_sum(p.image, geometry, rows, columns);
    int64_t terms = by_words ? int64_t{p.image.steps} * 32 / element : 0;
    kernel = *kernel_for(problem, by_words, terms);
    p.tile_filters = kernel.filters;
    p.group_channels = geometry.group_channels;
    p.image.group_channels = FastDivider<uint32_t>(geometry.group_channels);
    p.image.group_filters = FastDivider<uint32_t>(geometry.group_filters);
    int pixel_bytes = 0;
    if (!by_words) {
      p.tile_channels = kernel.filters / geometry.group_filters * geometry.group_channels;
      p.warp_channels = static_cast<int>(channels_of_warp(problem));
      // The last warp's tiles may reach beyond its channels.
      const int last_warp = (kThreads / 32 - 1) * 16 / geometry.group_filters * geometry.group_channels;
      pixel_bytes = std::max(p.tile_channels, last_warp + kernel.channels) * element;
    }
    lay_out_axes(p.image, geometry, rows, columns, width_log2, pixel_bytes);
    bool is_ordered = false;
    if (by_words) {
      // Eight words of four pixels are read at once, in 16 bits of every other pixel. The kernel has room for holes.
      const WordReads reads = {8, element == 2 ? std::vector<int>{0, 2, 4, 6} : std::vector<int>{0, 1, 2, 3}};
      const int64_t most_terms = mma::round_up(terms, kernel.terms);
      is_ordered = order_words(p.image, geometry, reads, static_cast<int>(most_terms * element / 4));
      terms = int64_t{p.image.steps} * 32 / element;
    }
    if (!is_ordered) {
      spread_pixels(p.image, geometry, [&](int bytes) {
        if (element == 4) return (by_words && bytes <= 32) || bytes / 4 % 16 == 8;
        return by_words ? bytes <= 16 || bytes / 4 % 8 == 4 : bytes / 16 % 2 == 1;
      });
    }
    lay_out_image(p.image, geometry, 0, by_words ? 64 * p.image.steps : 4 * kernel.taps);
    if (by_words) {
      set_lines(p.image, geometry);
    } else {
      lay_out_chunks(p.image, element, p.tile_channels * element);
      set_pixels(p.image, geometry.source, element);
    }
    const Operand& y = geometry.output;
    lay_out_gradient(p, y, width_log2);
    p.gradient_at = p.image.staging_at;
    p.gradient_places_at = p.gradient_at + p.gradient.rows.image_size * p.gradient.row_pitch;
    p.scratch_at = p.gradient_places_at + static_cast<int>(places_bytes(p.gradient.rows, p.gradient.columns));
    const bool has_planes = p.gradient.planes || (!by_words && p.image.planes);
    shared_bytes = p.scratch_at + (!has_planes ? 0 : element == 2 ? kScratchBytes<Half> : kScratchBytes<float>);

    const int64_t filters = y.sizes[1], filter_tiles = ceil_div(filters, kernel.filters);
    parts = static_cast<int>(filter_tiles * (by_words ? ceil_div(terms, kernel.terms) : 1));
    const mma::Machine machine = mma::Machine::of(problem.target);
    const int64_t resident = std::clamp<int64_t>(machine.shared_bytes / (shared_bytes + 1024), 1, 2);
    const int64_t part_bytes = 4 * (problem.w.count() + filters);
    const int64_t affordable = std::max<int64_t>(fastconv::kMostWorkspaceBytes / part_bytes, 1);
    splits = static_cast<int>(std::clamp<int64_t>(machine.multiprocessors * resident / parts, 1,
                                                  std::min<int64_t>(p.image.tiles, affordable)));
    p.parts = FastDivider<uint32_t>(parts);
    p.filter_tiles = FastDivider<uint32_t>(filter_tiles);
    partial_bytes = mma::round_up(4 * splits * problem.w.count(), 16);
    bias_bytes = problem.has_bias ? 4 * splits * filters : 0;
    predict(problem, machine, resident);
  }

  // dy of a tile: pixel behind pixel.
  void lay_out_gradient(WgradParameters& p, const Operand& y, int width_log2) const {
    const int element = geometry.element, width = 1 << width_log2, height = kTileRows >> width_log2;
    StagedTensor& gradient = p.gradient;
    const auto axis = [](int outputs, int tile) {
      return axis_of({outputs, 0, 1, 1, 0, outputs, 1, 1, 0, 1}, tile, true);
    };
    gradient.rows = axis(p.image.rows.outputs, height);
    gradient.columns = axis(p.image.columns.outputs, width);
    gradient.all_channels = p.image.all_filters;
    gradient.column_pitch = kernel.filters * element + (element == 2 ? 16 : 32);
    gradient.row_pitch = width * gradient.column_pitch;
    lay_out_chunks(gradient, element, kernel.filters * element);
    set_pixels(gradient, y, element);
  }

  int64_t workspace_bytes() const { return partial_bytes + bias_bytes; }

  void run(const ConvProblem& problem, const LaunchArguments& arguments) const {
    void *x = arguments.pointers[0], *w = arguments.pointers[1], *y = arguments.pointers[2];
    void* bias_gradient = arguments.pointers[3];
    const int element = geometry.element;
    WgradParameters p = parameters;
    set_pointer(p.image, x);
    set_pointer(p.gradient, y);
    auto* partial = static_cast<unsigned char*>(arguments.workspace);
    p.partial = reinterpret_cast<float*>(partial);
    p.partial_bias = problem.has_bias ? reinterpret_cast<float*>(partial + partial_bytes) : nullptr;
    launch_kernel({name(), static_cast<unsigned>(parts * splits), kThreads, shared_bytes, kThreads}, kernel.function, p,
                  {{"x", x, bytes_of(geometry.source, element)},
                   {"dy", y, bytes_of(geometry.output, element)},
                   {"partial", p.partial, partial_bytes, true},
                   {"partial_bias", p.partial_bias, bias_bytes, true}},
                  arguments.stream);
    Operand bias;
    bias.sizes = {1, problem.w.sizes[0], 1, 1};
    bias.strides = {problem.w.sizes[0], 1, 1, 1};
    with_index(problem.index_bits, [&](auto index) {
      using Index = typename decltype(index)::type;
      const auto add = [&](auto type) {
        using T = typename decltype(type)::type;
        launch_split_sum<T, Index>("wgrad_sum", problem.w, splits, p.partial, w, arguments.stream);
        if (problem.has_bias) {
          launch_split_sum<T, Index>("bias_gradient_sum", bias, splits, p.partial_bias, bias_gradient,
                                     arguments.stream);
        }
      };
      if (problem.dtype == DataType::float16) return add(TypeTag<Half>{});
      if (problem.dtype == DataType::bfloat16) return add(TypeTag<BFloat16>{});
      add(TypeTag<float>{});
    });
  }

 private:
  const char* name() const { return geometry.by_words ? "stem_wgrad" : "grouped_wgrad"; }

  // A roofline of tensor cores, shared memory and instructions for each tile, with memory as the floor.
  void predict(const ConvProblem& problem, const mma::Machine& machine, int64_t resident) {
    const Parameters& image = parameters.image;
    const mma::Precision precision = mma::precision_of(problem);
    const double columns = geometry.by_words ? kernel.terms : 4.0 * kernel.taps * kernel.channels;
    const double rows = geometry.by_words ? kernel.filters : 16;
    const double math = 2.0 * kTileRows * rows * columns / machine.tensor_flops(precision);
    const double steps = kTileRows / (32.0 / geometry.element);
    const double reads = steps * (kThreads / 32 * rows / 4 + columns / 4);
    const double staged = image_passes(image, geometry) + chunk_passes(parameters.gradient);
    const WgradInstructions issued =
        wgrad_instructions(kernel.taps, geometry.by_words ? kernel.terms : kernel.channels, precision);
    const StagedTensor& gradient = parameters.gradient;
    instructions = issued.product * product_instructions(rows, columns, kTileRows, precision) +
                   staging_instructions(image, geometry, issued.stage, issued.stage_planes) +
                   chunk_instructions(gradient, geometry.element, issued.gradient, issued.gradient_planes) +
                   kWarps * issued.rest;
    const double tile_clocks = std::max({math, reads + staged, instructions / mma::kSchedulers}) + 1500.0 / resident;
    const double tiles_each =
        double(ceil_div(image.tiles, splits)) * ceil_div(int64_t{parts} * splits, int64_t{machine.multiprocessors});
    const double filter_tiles = parameters.filter_tiles.divisor(), term_tiles = parts / filter_tiles;
    const double x_bytes = double(problem.x.count()) * geometry.element * (geometry.by_words ? parts : 1);
    const double bytes = x_bytes + double(problem.y.count()) * geometry.element * term_tiles + 2.0 * partial_bytes;
    seconds = std::max(tiles_each * tile_clocks / machine.clock, bytes / machine.memory_bandwidth) +
              mma::kLaunchSeconds * (2 + problem.has_bias);
  }
};

template <bool by_words>
std::vector<std::string> configs(const ConvProblem& problem) {
  if (!why_not(problem, by_words).empty()) return {""};
  std::vector<mma::Candidate> found;
  for (int i = kLeastWidthLog2; i <= kMostWidthLog2; ++i) {
    found.push_back({config_name(i), WgradLaunch(problem, by_words, i).seconds});
  }
  return mma::names_by_rank(std::move(found));
}

template <bool by_words>
std::string can_implement(const ConvProblem& problem, const std::string& text) {
  const std::string reason = why_not(problem, by_words);
  if (!reason.empty()) return reason;
  const WgradLaunch launch(problem, by_words, parse_config(text));
  const std::string too_large = mma::why_no_shared_memory(launch.shared_bytes, problem.target);
  if (!too_large.empty()) return too_large;
  const std::string too_wide = why_no_places(launch.geometry, launch.parameters.image);
  if (!too_wide.empty()) return too_wide;
  if (launch.workspace_bytes() > problem.most_workspace_bytes) {
    return mma::too_much_workspace(problem, "the parts of the sum");
  }
  return "";
}

template <bool by_words>
Prepared prepare(const ConvProblem& problem, const std::string& text) {
  const auto launch = std::make_shared<WgradLaunch>(problem, by_words, parse_config(text));
  Prepared prepared;
  Description& description = prepared.description;
  description.blocks = static_cast<unsigned>(launch->parts * launch->splits);
  description.threads = kThreads;
  description.shared_bytes = launch->shared_bytes;
  description.workspace_bytes = launch->workspace_bytes();
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.predicted_seconds = launch->seconds;
  const int width_log2 = launch->parameters.image.tile_width_log2;
  description.choices = {{"tile_rows", kTileRows >> width_log2},
                         {"tile_columns", 1 << width_log2},
                         {"tile_filters", launch->kernel.filters},
                         {"parts", launch->parts},
                         {"splits", launch->splits},
                         {"tile_instructions", static_cast<int64_t>(launch->instructions)}};
  prepared.launch = [problem, launch](const LaunchArguments& arguments) { launch->run(problem, arguments); };
  return prepared;
}

}  // namespace
}  // namespace staged

const KernelFamily<ConvProblem> stem_wgrad{
    "stem_wgrad", "1 to 4 input channels on tensor cores; x and dy of a tile are read once for all taps",
    staged::configs<true>, staged::can_implement<true>, staged::prepare<true>};
const KernelFamily<ConvProblem> grouped_wgrad{
    "grouped_wgrad", "groups of few channels on tensor cores; x and dy of a tile are read once for all taps",
    staged::configs<false>, staged::can_implement<false>, staged::prepare<false>};

}  // namespace fastconv
