// What the families on the gathered matrix product share: see mma_gather.h.
#include <numeric>

#include "launch/mma_gather.h"

namespace fastconv::mma {

namespace {

StagedBatch staged_batch_of(const ConvProblem& problem, const Geometry& geometry, double stored) {
  const bool is_converted = geometry.piece_bytes == 0;
  const double source = distinct_bytes(geometry.source, geometry.element);
  StagedBatch batch;
  batch.images = problem.x.sizes[0];
  batch.staged_bytes = static_cast<double>(geometry.converted_bytes + geometry.partial_bytes(1));
  batch.source_bytes = is_converted ? source : 0;
  batch.other_bytes = stored + (is_converted ? 0 : source);
  batch.weight_bytes = static_cast<double>(geometry.packed_bytes);
  batch.products = static_cast<double>(problem.flops()) / 2;
  batch.block_products = 128.0 * 128 * problem.w.sizes[2] * problem.w.sizes[3] * geometry.channel_pitch;
  batch.precision = precision_of(problem);
  batch.launches = 1 + is_converted + geometry.is_folded;
  return batch;
}

}  // namespace

double stored_bytes(const ConvProblem& problem) {
  const Operand& output = problem.pass == ConvPass::dgrad ? problem.x : problem.y;
  const int element = size_of(problem.dtype);
  return distinct_bytes(output, element) + (problem.has_residual ? distinct_bytes(problem.residual, element) : 0);
}

int64_t images_of_a_part(const ConvProblem& problem, double stored) {
  const Geometry geometry(problem);
  const int64_t most = images_at_once(problem, geometry.converted_bytes + geometry.partial_bytes(1));
  return images_of_a_part(Machine::of(problem.target), staged_batch_of(problem, geometry, stored), most);
}

void add_conversion(Work& work, const ConvProblem& problem, const Geometry& geometry, double stored) {
  if (geometry.piece_bytes != 0) return;
  const Machine machine = Machine::of(problem.target);
  StagedBatch batch = staged_batch_of(problem, geometry, stored);
  const bool in_cache = batch.images <= images_in_cache(machine, batch);
  batch.staged_bytes = static_cast<double>(geometry.converted_bytes);
  work.staging_seconds = staging_seconds(machine, batch, in_cache);
  work.memory_bytes += (in_cache ? 0 : batch.staged_bytes) - batch.source_bytes;
  work.extra_launches += 1;
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
  const ConvProblem part = gather_part_of(problem);
  if (part.x.sizes[0] == 0) {
    return too_much_workspace(problem, Geometry(problem).is_folded
                                           ? "an image's gradient by the padded x, and turning it to channels-last"
                                           : "turning an image to channels-last");
  }
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
  parameters.is_transposed = geometry.transposed;
  if (!geometry.transposed) parameters.border = border_of(problem);
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

}  // namespace fastconv::mma
