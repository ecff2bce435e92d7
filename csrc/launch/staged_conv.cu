#include "launch/staged_conv.h"

#include <memory>

#include "kernels/mma_conv/lower_bound.h"
#include "launch/staged_conv_geometry.h"
#include "launch/staged_instructions.h"

namespace fastconv {
namespace staged {
namespace {

constexpr int kMostWeightBytes = 64 * 1024;

std::string why_not_grouped(const ConvProblem& problem) {
  const std::string reason = why_not_any(problem);
  if (!reason.empty()) return reason;
  if (problem.groups == 1) return "not grouped";
  const Geometry geometry(problem, false);
  constexpr int kMostColumns = 32, kMostChannels = 64;
  if (geometry.group_channels == 1) return "groups of 1 reduced channel: depthwise";
  if (geometry.group_channels > kMostChannels) {
    return "groups of " + std::to_string(geometry.group_channels) + " reduced channels; accepted are up to " +
           std::to_string(kMostChannels);
  }
  if (geometry.unit_filters > kMostColumns) {
    return std::to_string(geometry.unit_groups) + " groups, which fill whole 16 bytes of a pixel, have " +
           std::to_string(geometry.unit_filters) + " outputs; accepted are up to " + std::to_string(kMostColumns);
  }
  for (int i = 0; i < 2; ++i) {
    if (geometry.transposed && problem.stride[i] > 4) return "a stride of more than 4";
  }
  return "";
}

const std::vector<Kernel>& kernels_for(const ConvProblem& problem) {
  return mma::for_types_of(problem, [](auto element, auto precision) -> const std::vector<Kernel>& {
    return kernels<decltype(element), precision()>();
  });
}

// One launch: for dgrad, of one residue of rows and columns modulo the strides.
struct Launch {
  Parameters parameters{};
  int64_t shared_bytes = 0;
  unsigned blocks = 0;
  int64_t weight_offset = 0;  // of its first tap, in elements
  double instructions = 0;    // of a tile, predicted
  double seconds = 0;         // predicted, without the launch itself
  int64_t source_bytes = 0;   // that the tiles stage, in 32-byte sectors for the rows of an image
};

// Whether outputs are plain but for the alignment of the pointer, and the steps between their places.
void set_plain_steps(Parameters& p, const ConvProblem& problem, const Geometry& geometry, const AxisPlan& rows,
                     const AxisPlan& columns) {
  const Operand& output = geometry.output;
  const int64_t row_bytes = rows.output_step * output.strides[2] * geometry.element;
  const int64_t column_bytes = columns.output_step * output.strides[3] * geometry.element;
  const bool is_whole = (p.along_pixels ? columns.outputs : p.all_filters) % geometry.chunk == 0;
  p.is_plain = p.out.vector_access && !problem.has_residual && mma::is_lower_bound(problem.activation) && is_whole &&
               kTileRows * (row_bytes + column_bytes) <= INT32_MAX;
  if (!p.is_plain) return;
  p.plain_batch_bytes = output.strides[0] * geometry.element;
  p.plain_row_bytes = static_cast<int>(row_bytes);
  p.plain_column_bytes = static_cast<int>(column_bytes);
  for (int i = 0; i < 2; ++i) {
    const int pixels = 8 << i, down = pixels >> p.tile_width_log2, across = pixels & ((1 << p.tile_width_log2) - 1);
    p.plain_steps[i] = {static_cast<int>(down * row_bytes + across * column_bytes), down, across};
  }
  const int pass_columns = geometry.kernel.units * geometry.unit_columns;
  p.plain_turn_bytes = static_cast<int>(32 / (pass_columns / geometry.chunk) * column_bytes);
  const int64_t channel_bytes = output.strides[1] * geometry.element;
  p.plain_eight_bytes = 8 * channel_bytes;
  p.plain_unit_bytes = geometry.unit_filters * channel_bytes;
  p.plain_last_eight_bytes = p.plain_unit_bytes - (geometry.unit_columns - 8) * channel_bytes;
}

// Everything but the pointers.
Launch plan_launch(const ConvProblem& problem, Geometry geometry, const AxisPlan& rows, const AxisPlan& columns,
                   int tile_width_log2) {
  Launch launch;
  Parameters& p = launch.parameters;
  const int element = geometry.element, step_depth = 32 / element;
  lay_out_sum(p, geometry, rows, columns);
  const bool by_words = geometry.by_words;
  bool is_ordered = false;
  if (by_words) {
    lay_out_axes(p, geometry, rows, columns, tile_width_log2, 0);
    // Eight neighbouring pixels are read at once, four words of each.
    is_ordered = order_words(p, geometry, {4, {0, 1, 2, 3, 4, 5, 6, 7}}, 8 * p.steps);
  }
  p.weight_pitch = p.steps * 32 + 16;

  geometry.choose_kernel(kernels_for(problem), kMostWeightBytes, p.weight_pitch);
  const int slabs = static_cast<int>(ceil_div(geometry.units, geometry.slab_units));
  p.units = geometry.slab_units;
  p.unit_groups = geometry.unit_groups;
  p.unit_filters = geometry.unit_filters;
  p.unit_channels = geometry.unit_channels;
  p.group_filters = FastDivider<uint32_t>(geometry.group_filters);
  p.group_channels = FastDivider<uint32_t>(geometry.group_channels);
  p.groups = geometry.groups;
  p.is_transposed = geometry.transposed;
  p.slabs = FastDivider<uint32_t>(slabs);

  // Words as they are numbered: those of one tap row lie in different banks where pixels are 4, 12, 20 ... words apart,
  // and in the same words or in different banks where they are up to 4 apart. Chunks of 16 bytes do where pixels are an
  // odd number of chunks apart.
  const int slab_bytes = p.units * p.unit_channels * element;
  if (!by_words) lay_out_axes(p, geometry, rows, columns, tile_width_log2, slab_bytes);
  if (!is_ordered) {
    spread_pixels(p, geometry,
                  [&](int bytes) { return by_words ? bytes <= 16 || bytes / 4 % 8 == 4 : bytes / 16 % 2 == 1; });
  }
  lay_out_image(p, geometry, p.units * geometry.unit_columns * p.weight_pitch, p.steps * (by_words ? 64 : 8));
  if (by_words) {
    set_lines(p, geometry);
  } else {
    lay_out_chunks(p, element, slab_bytes);
    set_pixels(p, geometry.source, element);
  }
  const int pass_columns = geometry.kernel.units * geometry.unit_columns;
  p.bias_at = round_to(p.staging_at + int64_t{kThreads} / 32 * pass_columns * kStagingBytes, 16);
  launch.shared_bytes = p.bias_at + (problem.has_bias ? int64_t{p.units} * geometry.unit_columns * 4 : 0);

  // The output.
  const Operand& output = geometry.output;
  p.along_pixels = output.strides[1] != 1 && output.sizes[1] > 1;
  p.output_strides = mma::pixel_strides(output);
  p.residual_strides = mma::pixel_strides(problem.residual);
  p.output_channel = output.strides[1];
  p.residual_channel = problem.residual.strides[1];
  p.out.column_stride = p.along_pixels ? columns.output_step * output.strides[3] : output.strides[1];
  p.out.residual_column_stride =
      p.along_pixels ? columns.output_step * problem.residual.strides[3] : problem.residual.strides[1];
  p.out.activation = problem.activation;
  const int contiguous = p.along_pixels ? 3 : 1;
  const auto whole = [&](const Operand& operand) {
    if (operand.strides[contiguous] != 1) return false;
    for (int i = 0; i < 4; ++i) {
      if (i != contiguous && operand.sizes[i] > 1 && operand.strides[i] * element % 16 != 0) return false;
    }
    return true;
  };
  p.out.vector_access = (p.along_pixels ? columns.output_step == 1 : geometry.unit_filters % geometry.chunk == 0) &&
                        whole(output) && (!problem.has_residual || whole(problem.residual));
  set_plain_steps(p, problem, geometry, rows, columns);

  // The weights.
  const auto& w = problem.w;
  const int64_t filters = w.sizes[0] / problem.groups;
  p.weight_group = filters * w.strides[0];
  p.weight_output = w.strides[geometry.transposed ? 1 : 0];
  p.weight_input = w.strides[geometry.transposed ? 0 : 1];
  p.weight_row = rows.tap_step * w.strides[2];
  p.weight_column = columns.tap_step * w.strides[3];
  launch.weight_offset = p.taps_down == 0 ? 0 : rows.first_tap * w.strides[2] + columns.first_tap * w.strides[3];

  // Blocks that stay, and what a tile is predicted to take: a roofline of tensor cores, shared memory and instructions.
  const mma::Machine machine = mma::Machine::of(problem.target);
  const mma::Precision precision = mma::precision_of(problem);
  const int64_t resident = std::clamp<int64_t>(machine.shared_bytes / (launch.shared_bytes + 1024), 1,
                                               precision == mma::Precision::split_tf32 ? 2 : 3);
  const int64_t most = std::max<int64_t>(machine.multiprocessors * resident / slabs, 1);
  launch.blocks = static_cast<unsigned>(slabs * std::min<int64_t>(p.tiles, most));
  const double rate = machine.tensor_flops(precision);
  const double products = double(kTileRows) * p.units * geometry.unit_columns * p.steps * step_depth;
  const double image_bytes = double(p.rows.image_size) * p.row_pitch;
  const double reads = kThreads / 32.0 * p.units * p.steps * (8 + std::max(geometry.unit_columns / 4, 2));
  // Outputs are written and read once, as float32 or, if they are plain, as they are stored.
  const double turned = double(kTileRows) * p.units * geometry.unit_columns * 2 * (p.is_plain ? element : 4) / 128;
  const double wavefronts = reads + turned + image_passes(p, geometry);
  const ConvInstructions issued = conv_instructions(by_words, geometry.unit_columns, precision);
  launch.instructions =
      issued.product *
          product_instructions(kTileRows, p.units * geometry.unit_columns, p.steps * step_depth, precision) +
      staging_instructions(p, geometry, issued.stage, issued.stage_planes) +
      kWarps * (p.units / geometry.kernel.units * (p.is_plain ? issued.store : issued.store_any) + issued.rest);
  const double tile_clocks =
      std::max({2 * products / rate, wavefronts, launch.instructions / mma::kSchedulers}) + 1500.0 / resident;
  const double tiles_each = ceil_div(int64_t{p.tiles} * slabs, int64_t{machine.multiprocessors});
  launch.seconds = tiles_each * tile_clocks / machine.clock;
  const double read_bytes =
      by_words || !p.planes ? image_bytes : double(p.rows.image_size) * p.row_blocks * p.chunks * geometry.chunk * 16;
  launch.source_bytes = static_cast<int64_t>(read_bytes) * p.tiles * slabs;
  return launch;
}

// All launches of a configuration, ready but for the pointers.
struct Launches {
  Geometry geometry;
  std::vector<Launch> launches;
  int64_t shared_bytes = 0;
  double seconds = 0;

  Launches(const ConvProblem& problem, bool by_words, int width_log2) : geometry(problem, by_words) {
    double computing = 0, halo_bytes = 0;
    for (const AxisPlan& rows : axis_plans(problem, 0)) {
      for (const AxisPlan& columns : axis_plans(problem, 1)) {
        Launch one = plan_launch(problem, geometry, rows, columns, width_log2);
        shared_bytes = std::max(shared_bytes, one.shared_bytes);
        computing += one.seconds;
        halo_bytes += static_cast<double>(one.source_bytes);
        launches.push_back(one);
      }
    }
    const mma::Machine machine = mma::Machine::of(problem.target);
    // What a tile shares with its neighbours mostly comes from the cache.
    constexpr double kHaloFromMemory = 0.25;
    const double source_bytes = static_cast<double>(geometry.source.count()) * geometry.element;
    const double bytes = problem.compulsory_bytes() + kHaloFromMemory * std::max(0.0, halo_bytes - source_bytes);
    seconds = std::max(computing, bytes / machine.memory_bandwidth) + mma::kLaunchSeconds * launches.size();
  }

  void run(const ConvProblem& problem, const char* name, const LaunchArguments& arguments) const {
    const auto [x, w, y, bias, residual] = arguments.pointers;
    const int element = geometry.element;
    const void* source = geometry.transposed ? y : x;
    for (const Launch& one : launches) {
      Parameters p = one.parameters;
      set_pointer(p, source);
      p.weights = static_cast<const unsigned char*>(w) + one.weight_offset * element;
      p.bias = problem.has_bias ? bias : nullptr;
      p.out.output = geometry.transposed ? x : y;
      p.out.residual = problem.has_residual ? residual : nullptr;
      p.out.vector_access = p.out.vector_access && mma::is_aligned(p.out.output) && mma::is_aligned(p.out.residual);
      p.is_plain = p.is_plain && p.out.vector_access;
      launch_kernel({name, one.blocks, kThreads, one.shared_bytes, kThreads}, kernel_of(problem), p,
                    {{geometry.transposed ? "dy" : "x", source, bytes_of(geometry.source, element)},
                     {"w", w, bytes_of(problem.w, element)},
                     {geometry.transposed ? "dx" : "y", p.out.output, bytes_of(geometry.output, element), true},
                     {"bias", p.bias, geometry.output.sizes[1] * element},
                     {"residual", p.out.residual, bytes_of(problem.residual, element)}},
                    arguments.stream);
    }
  }

  void (*kernel_of(const ConvProblem& problem) const)(Parameters) {
    Geometry chosen = geometry;
    chosen.choose_kernel(kernels_for(problem), kMostWeightBytes, launches[0].parameters.weight_pitch);
    return chosen.kernel.function;
  }
};

std::string why_not(const ConvProblem& problem, bool by_words) {
  return by_words ? why_not_stem(problem) : why_not_grouped(problem);
}

template <bool by_words>
std::vector<std::string> configs(const ConvProblem& problem) {
  if (!why_not(problem, by_words).empty()) return {""};
  std::vector<mma::Candidate> found;
  for (int i = kLeastWidthLog2; i <= kMostWidthLog2; ++i) {
    found.push_back({config_name(i), Launches(problem, by_words, i).seconds});
  }
  return mma::names_by_rank(std::move(found));
}

template <bool by_words>
std::string can_implement(const ConvProblem& problem, const std::string& text) {
  const std::string reason = why_not(problem, by_words);
  if (!reason.empty()) return reason;
  const Launches launches(problem, by_words, parse_config(text));
  const std::string too_large = mma::why_no_shared_memory(launches.shared_bytes, problem.target);
  if (!too_large.empty()) return too_large;
  for (const Launch& one : launches.launches) {
    const std::string too_wide = why_no_places(launches.geometry, one.parameters);
    if (!too_wide.empty()) return too_wide;
  }
  return "";
}

template <bool by_words>
Prepared prepare(const ConvProblem& problem, const std::string& text) {
  const auto launches = std::make_shared<Launches>(problem, by_words, parse_config(text));
  const Parameters& p = launches->launches[0].parameters;
  Prepared prepared;
  Description& description = prepared.description;
  description.blocks = launches->launches[0].blocks;
  description.threads = kThreads;
  description.shared_bytes = launches->shared_bytes;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.predicted_seconds = launches->seconds;
  const int64_t multiplied =
      int64_t{p.units} * launches->geometry.unit_columns * p.steps * (32 / launches->geometry.element);
  const int64_t wanted = int64_t{std::min(p.units * p.unit_filters, p.all_filters)} *
                         launches->geometry.group_channels * p.taps_down * p.taps_across;
  description.choices = {{"tile_rows", kTileRows >> p.tile_width_log2},
                         {"tile_columns", 1 << p.tile_width_log2},
                         {"unit_groups", p.unit_groups},
                         {"unit_columns", launches->geometry.unit_columns},
                         {"slabs", p.slabs.divisor()},
                         {"launches", static_cast<int64_t>(launches->launches.size())},
                         {"useful_percent", 100 * wanted / multiplied},
                         {"tile_instructions", static_cast<int64_t>(launches->launches[0].instructions)}};
  const char* name = by_words ? "stem_fprop" : problem.pass == ConvPass::fprop ? "grouped_fprop" : "grouped_dgrad";
  prepared.launch = [problem, launches, name](const LaunchArguments& arguments) {
    launches->run(problem, name, arguments);
  };
  return prepared;
}

}  // namespace
}  // namespace staged

const KernelFamily<ConvProblem> stem_fprop{
    "stem_fprop",
    "1 to 4 input channels on tensor cores, packed as (tap row, tap column, channel); the input of a tile is read once",
    staged::configs<true>, staged::can_implement<true>, staged::prepare<true>};
const KernelFamily<ConvProblem> grouped_fprop{
    "grouped_fprop",
    "groups of few channels on tensor cores, several in one product; the input of a tile is read once for its groups",
    staged::configs<false>, staged::can_implement<false>, staged::prepare<false>};
const KernelFamily<ConvProblem> grouped_dgrad{
    "grouped_dgrad",
    "gradient by input of groups of few channels on tensor cores, a launch for each residue of the stride",
    staged::configs<false>, staged::can_implement<false>, staged::prepare<false>};

}  // namespace fastconv
