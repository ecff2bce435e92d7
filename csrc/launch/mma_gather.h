// What the families on the gathered matrix product share on the host: the operands on their way to the kernel, its
// parameters, the order of its tiles.
#pragma once

#include "launch/cache_parts.h"
#include "launch/mma_conv.h"
#include "launch/mma_gather_geometry.h"

namespace fastconv::mma {

// What is stored of the problem: the output, for which a residual is read, unless it is reduced before.
double stored_bytes(const ConvProblem& problem);

// How many images one launch computes: as many as can be turned to channels-last, or held by the padded x's gradient,
// at a time. stored: of all images.
int64_t images_of_a_part(const ConvProblem& problem, double stored);
inline ConvProblem gather_part_of(const ConvProblem& problem) {
  return with_images(problem, images_of_a_part(problem, stored_bytes(problem)));
}

// The work's memory_bytes hold each operand once. Takes out the source where it is converted, and puts in what that
// moves before and afterwards.
void add_conversion(Work& work, const ConvProblem& problem, const Geometry& geometry, double stored);

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
