// How wgrad with W innermost shares out images: the host's side of kernels/depthwise/wgrad_pieces.cuh.
#include "launch/depthwise_wgrad.h"
#include "launch/tiling.h"

namespace fastconv::depthwise {

std::string why_not_pieces(const ConvProblem& problem) {
  if (!has_dense_planes(problem.x) || !has_dense_planes(problem.y)) {
    return "the planes of x or dy have gaps: this kernel takes NCHW with dense planes";
  }
  for (const Operand* operand : {&problem.x, &problem.y}) {
    if (operand->sizes[2] * operand->sizes[3] >= int64_t{1} << 30) return "2^30 elements of a plane or more";
  }
  return "";
}

std::string why_not_blocks(const ConvProblem& problem, const WgradPieces& pieces, int64_t warp_bytes, int64_t blocks) {
  if (pieces.pieces >= int64_t{1} << 30) return "2^30 pieces of images or more";
  if (warp_bytes * kPlaneWarps > most_shared_bytes(problem.target)) {
    return "rows need " + std::to_string(warp_bytes * kPlaneWarps) + " bytes of shared memory, a block has " +
           std::to_string(most_shared_bytes(problem.target));
  }
  return reason_for_blocks(blocks);
}

WgradPieces WgradPieces::of(const ConvProblem& problem, int64_t blocks_of_filter) {
  const int element = size_of(problem.dtype);
  const Axis rows = axis_of(problem, 0), columns = axis_of(problem, 1);
  const int64_t images = problem.x.sizes[0], filters = problem.y.sizes[1];
  const PlaneSizes sizes{rows, false, element, columns.source, columns.output, 0};
  WgradPieces result;
  // Images of one channel do not follow each other: as many as make a piece that is worth a warp's turn.
  result.extent = choose_extent(sizes, 1, false, images * filters, problem.target);
  const int64_t bytes = (result.extent.source_elements + result.extent.output_elements) * element;
  const int64_t chunk = kChunkBytes / element;
  const auto room = [&](int64_t elements) { return ceil_div(elements, chunk) * chunk + chunk; };
  result.x_pitch = room(result.extent.source_elements) + 2 * kPlaneGuard;
  result.dy_pitch = room(result.extent.output_elements);
  if (result.extent.strips == 1) {
    const int64_t fitting = kPieceRoomBytes / ((result.x_pitch + result.dy_pitch) * element);
    result.extent.planes = static_cast<int>(std::max<int64_t>(std::min({kPieceBytes / bytes, fitting, images}), 1));
  }
  result.dy_place = result.extent.planes * result.x_pitch * element;
  result.warp_bytes = result.dy_place + result.extent.planes * result.dy_pitch * element;
  result.pieces = ceil_div(images, result.extent.planes) * result.extent.strips;
  const int64_t wanted = ceil_div(8 * problem.target.multiprocessors, filters * blocks_of_filter);
  const int64_t most = std::max<int64_t>(result.pieces / kPlaneWarps, 1);
  result.pieces_of_split = ceil_div(result.pieces, std::min(wanted, most));
  // float32 sums: a lane adds at most some thousands of terms.
  const int64_t terms = ceil_div(result.extent.output_elements, kPlaneThreads);
  result.pieces_of_split = std::max<int64_t>(std::min(result.pieces_of_split, 4096 / terms), 1);
  result.pieces_of_split = std::max(result.pieces_of_split, ceil_div(result.pieces, Parts::most_splits(problem)));
  result.splits = ceil_div(result.pieces, result.pieces_of_split);
  return result;
}

PlanesWgradParameters WgradPieces::parameters(const ConvProblem& problem, int64_t tap_groups, int64_t groups_of_row,
                                              int64_t bytes_of_warp) const {
  PlanesWgradParameters p{};
  p.x_strides = plane_of(problem.x);
  p.dy_strides = plane_of(problem.y);
  p.dw_strides = weights_of(problem);
  p.rows = axis_of(problem, 0);
  p.columns = axis_of(problem, 1);
  p.multiplier = FastDivider<uint32_t>(problem.y.sizes[1] / problem.x.sizes[1]);
  p.output_columns = FastDivider<uint32_t>(p.columns.output);
  p.output_rows = FastDivider<uint32_t>(p.rows.output);
  p.images = static_cast<int>(problem.x.sizes[0]);
  p.images_of_piece = extent.planes;
  p.strip_rows = extent.strip_rows;
  p.strips = FastDivider<uint32_t>(extent.strips);
  p.pieces = static_cast<int>(pieces);
  p.pieces_of_split = static_cast<int>(pieces_of_split);
  p.filters = FastDivider<uint32_t>(problem.y.sizes[1]);
  p.tap_groups = FastDivider<uint32_t>(tap_groups);
  p.groups_of_row = FastDivider<uint32_t>(groups_of_row);
  p.x_pitch = static_cast<int>(x_pitch);
  p.dy_pitch = static_cast<int>(dy_pitch);
  p.dy_place = static_cast<int>(dy_place);
  p.warp_bytes = static_cast<int>(bytes_of_warp);
  return p;
}

double WgradPieces::bytes(const ConvProblem& problem) const {
  return static_cast<double>(problem.y.sizes[1] * pieces * extent.planes) *
         static_cast<double>((extent.source_elements + extent.output_elements) * size_of(problem.dtype));
}

Description WgradPieces::description(int64_t tap_groups, int64_t blocks, int64_t bytes_of_warp,
                                     const Parts& parts) const {
  Description description;
  description.blocks = static_cast<unsigned>(blocks);
  description.threads = kPlaneThreads;
  description.shared_bytes = bytes_of_warp * kPlaneWarps;
  description.workspace_bytes = parts.bytes;
  description.choices = {
      {"images", extent.planes}, {"rows", extent.strip_rows}, {"tap_groups", tap_groups}, {"splits", splits}};
  return description;
}

}  // namespace fastconv::depthwise
