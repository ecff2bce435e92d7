// Block barriers, warp barriers and fences: __syncthreads and its kin as in CUDA, bar.sync and bar.arrive by name.
#pragma once

#if FASTCONV_EMULATOR
#include "emulator/cuda_language.h"
#include "emulator/observe.h"
#include "emulator/scheduler.h"

__forceinline__ void __syncthreads() {
  fastconv::emulator::barrier_sync(0, 0, false);
}
__forceinline__ int __syncthreads_count(int predicate) {
  return fastconv::emulator::barrier_sync(0, 0, predicate != 0);
}
__forceinline__ int __syncthreads_or(int predicate) {
  return fastconv::emulator::barrier_sync(0, 0, predicate != 0) > 0;
}
__forceinline__ int __syncthreads_and(int predicate) {
  return fastconv::emulator::barrier_sync(0, 0, predicate == 0) == 0;
}

__forceinline__ void __syncwarp(unsigned int mask = 0xffffffffu) {
  static constexpr fastconv::emulator::WarpOperation operation{"__syncwarp", nullptr};
  fastconv::emulator::meet_lanes(mask, operation, nullptr);
}

__forceinline__ void __threadfence_block() {
  fastconv::emulator::memory_fence();
}
__forceinline__ void __threadfence() {
  fastconv::emulator::trust_other_blocks();
  fastconv::emulator::memory_fence();
}
__forceinline__ void __nanosleep(unsigned int) {
  fastconv::emulator::yield_thread();
}
#endif

namespace fastconv::ptx {

// Waits until `threads` threads have come to barrier `barrier` (1..15; 0 is __syncthreads'), those that only arrive
// included. `threads` is a multiple of 32 and all lanes of a warp do the same.
__device__ __forceinline__ void barrier_sync(int barrier, int threads) {
#if FASTCONV_EMULATOR
  emulator::barrier_sync(barrier, threads, false);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#endif
}

// Counts as having come to the barrier, without waiting there.
__device__ __forceinline__ void barrier_arrive(int barrier, int threads) {
#if FASTCONV_EMULATOR
  emulator::barrier_arrive(barrier, threads);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#endif
}

}  // namespace fastconv::ptx
