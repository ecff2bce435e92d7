// What a running CUDA thread knows of itself: threadIdx, blockIdx, blockDim, gridDim, its dynamic shared memory.
//
// All stacks of a worker lie in one region whose address is a multiple of its size, and the region begins with the view
// below. So a thread finds itself by masking its stack pointer: no thread-local variable, nothing to save at a switch,
// and the compiler may keep the result in a register across barriers, because a CUDA thread never changes its stack.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/vector_types.h"

namespace fastconv::emulator {

constexpr int kWarpSize = 32;
constexpr int kMaxThreads = 1024;  // of a block
constexpr int kMaxWarps = kMaxThreads / kWarpSize;
constexpr size_t kStackBytes = size_t{1} << 17;   // address space of one stack, guard page included
constexpr size_t kRegionAlign = size_t{1} << 28;  // the view, then kMaxThreads stacks, fit below this

struct ThreadView {
  uint3 index;    // threadIdx
  uint32_t rank;  // x fastest: warp = rank / 32, lane = rank % 32
};

struct BlockView {
  uint3 block_index;
  dim3 block_dim, grid_dim;
  unsigned char* dynamic_shared;    // 1024-byte aligned
  ThreadView threads[kMaxThreads];  // by stack, not by rank
};

inline uintptr_t stack_pointer() {
  uintptr_t pointer;
#if defined(__x86_64__)
  asm("movq %%rsp, %0" : "=r"(pointer));
#elif defined(__aarch64__)
  asm("mov %0, sp" : "=r"(pointer));
#else
  pointer = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
#endif
  return pointer;
}

// Only for code that runs as a CUDA thread.
inline const BlockView& current_block() {
  return *reinterpret_cast<const BlockView*>(stack_pointer() & ~(kRegionAlign - 1));
}

inline const ThreadView& current_thread() {
  const uintptr_t pointer = stack_pointer();
  const BlockView& block = *reinterpret_cast<const BlockView*>(pointer & ~(kRegionAlign - 1));
  return block.threads[(pointer & (kRegionAlign - 1)) / kStackBytes - 1];
}

}  // namespace fastconv::emulator
