// The tile shapes of the kernels that reduce a convolution's output before it is stored.
#pragma once

#include "kernels/mma_conv/fused_parameters.h"
#include "launch/mma_tiles.h"

namespace fastconv::mma {

// Few: the finished tile needs shared memory beside what the plain kernel has, and every tile is two kernels a type.
constexpr Tile kFusedTiles16[] = {
    {128, 128, 32, 4, 64, 64}, {256, 64, 32, 4, 64, 64}, {256, 128, 32, 4, 64, 64}, {128, 64, 64, 3, 64, 32}};
constexpr Tile kFusedTilesTf32[] = {{128, 128, 16, 4, 64, 64}, {256, 64, 16, 4, 64, 64}, {128, 64, 32, 3, 64, 32}};
constexpr Tile kFusedTilesSplit[] = {{128, 128, 32, 3, 64, 32}, {256, 64, 16, 4, 64, 32}, {128, 64, 32, 3, 64, 32}};

struct FusedKernels {
  KernelSet<PoolGatherParameters> pool;
  KernelSet<BestGatherParameters> best;
};

template <class Element, Precision precision>
const FusedKernels& fused_kernels();

}  // namespace fastconv::mma
