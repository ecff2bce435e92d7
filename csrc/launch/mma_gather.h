// What the families on the gathered matrix product share on the host: the operands on their way to the kernel, its
// parameters, the order of its tiles.
#pragma once

#include "launch/mma_conv.h"
#include "launch/mma_gather_geometry.h"

namespace fastconv::mma {

// What one launch computes: as many images as can be turned to channels-last, or held by the padded x's gradient, at a
// time; mostly all.
ConvProblem gather_part_of(const ConvProblem& problem);

// Why no kernel on the gathered product takes the problem; empty where they may.
std::string why_not_gather(const ConvProblem& problem);

// Everything but the pointers and the tiles.
GatherParameters gather_parameters(const ConvProblem& problem, const Geometry& geometry, int splits);

// The order in which blocks take `row_tiles` x the tiles of columns. Returns the blocks of one split.
int64_t lay_out_rasters(GatherParameters& parameters, const Geometry& geometry, const Tile& tile, int groups,
                        uint32_t row_tiles);

// Turns the source to channels-last and repacks the weights where the kernel wants that, in shares of the workspace.
class GatherOperands {
 public:
  GatherOperands(const ConvProblem& problem, const Geometry& geometry, Workspace& workspace);

  struct Ready {
    const void* source;
    int64_t source_bytes;
    const void* weights;
    int64_t weight_bytes;
    int piece_bytes;  // of one copy of the source
  };
  Ready operator()(const void* source, const void* w, const LaunchArguments& arguments) const;

  Packing packing() const;

 private:
  void pack(const void* w, void* packed, const Stream& stream) const;

  const ConvProblem problem_;
  const Geometry geometry_;
  const RepackParameters repack_;
  int64_t converted_at_;
};

}  // namespace fastconv::mma
