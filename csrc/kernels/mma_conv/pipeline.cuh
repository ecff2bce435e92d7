// The main loop that all passes share: copies run kStages - 1 slices ahead of the tensor cores.
#pragma once

#include "kernels/mma_conv/epilogue.cuh"
#include "kernels/mma_conv/warp_tile.cuh"
#include "ptx/cp_async.h"

namespace fastconv::mma {

// load(stage memory, slice, its stage): starts the copies of a slice, called in order, once for each of `slices`.
// load_fragments(fragments, stage memory, step); on_step(fragments) sees each of them before it is multiplied.
// Returns when all copies have landed and no thread reads the pipeline's memory any more.
template <class Shape, class Load, class LoadFragments, class OnStep>
__device__ __forceinline__ void run_pipeline(Accumulators<Shape>& accumulators, unsigned char* pipeline, int slices,
                                             OperandRange& range, const Load& load, const LoadFragments& load_fragments,
                                             const OnStep& on_step) {
  constexpr int kStages = Shape::kStages;
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < slices) load(pipeline + i * Shape::kStageBytes, i, i);
    ptx::commit_async_copies();  // one group a slice, empty or not, so that waiting counts slices
  }
  int read_stage = 0, write_stage = kStages - 1;
#pragma unroll 1
  for (int slice = 0; slice < slices; ++slice) {
    ptx::wait_async_copies<kStages - 2>();
    __syncthreads();  // the slice is there for all, and the stage that is filled next is no longer read
    const int ahead = slice + kStages - 1;
    if (ahead < slices) load(pipeline + write_stage * Shape::kStageBytes, ahead, write_stage);
    ptx::commit_async_copies();

    const unsigned char* stage = pipeline + read_stage * Shape::kStageBytes;
    Fragments<Shape> fragments[2];
    load_fragments(fragments[0], stage, 0);
#pragma unroll
    for (int step = 0; step < Shape::kSteps; ++step) {
      if (step + 1 < Shape::kSteps) load_fragments(fragments[(step + 1) % 2], stage, step + 1);
      on_step(fragments[step % 2]);
      multiply<Shape>(accumulators.sums, fragments[step % 2], range);
    }
    read_stage = read_stage + 1 == kStages ? 0 : read_stage + 1;
    write_stage = write_stage + 1 == kStages ? 0 : write_stage + 1;
  }
  ptx::wait_async_copies<0>();
  __syncthreads();
}

// Where split TF32 is not float32: a sum that overflowed on the way or met an infinity or a NaN (infinity times a low
// part that is zero is NaN), and sums of numbers so small that their low parts are lost. Those outputs are computed
// again with plain float32 arithmetic; that takes long, and ordinary data has none.
//
// A number below 2^-113 loses less than 2^-126 of itself, so a sum of n products loses less than n 2^-126 times the
// largest operand. With 2^22 terms that is below 2^-24 of every sum that is not less than 2^-80 times the largest.
struct Suspicion {
  float too_small;  // sums below it are suspect

  // Of all lanes of a warp, together.
  __device__ __forceinline__ explicit Suspicion(const OperandRange& range) {
    constexpr uint32_t kTiny = (14u << 24) - 1;  // of 2^-113, as OperandRange has it
    uint32_t largest = range.largest;
    for (int distance = 16; distance > 0; distance /= 2) {
      largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
    }
    const bool has_tiny = __any_sync(0xffffffffu, range.smallest < kTiny);
    // An infinity would make every sum suspect; those that it is part of are not finite.
    const float bound = fminf(__uint_as_float(largest / 2), 0x1.fffffep127f) * 0x1p-80f;
    too_small = has_tiny ? bound : 0.0f;
  }

  __device__ __forceinline__ bool operator()(float sum) const {
    const float magnitude = fabsf(sum);
    return !(magnitude < __uint_as_float(0x7f800000u)) || magnitude < too_small;
  }
};

}  // namespace fastconv::mma
