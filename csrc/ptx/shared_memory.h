// Shared memory whose size is chosen at launch. Static shared memory is written as in CUDA: __shared__ float tile[64];
#pragma once

#if FASTCONV_EMULATOR
#include "emulator/cuda_language.h"
#endif

namespace fastconv::ptx {

// The block's dynamic shared memory, 1024-byte aligned (what TMA with 128-byte swizzle asks for).
template <class T>
__device__ __forceinline__ T* dynamic_shared_memory() {
#if FASTCONV_EMULATOR
  return reinterpret_cast<T*>(emulator::current_block().dynamic_shared);
#else
  extern __shared__ __align__(1024) unsigned char fastconv_dynamic_shared_memory[];
  return reinterpret_cast<T*>(fastconv_dynamic_shared_memory);
#endif
}

}  // namespace fastconv::ptx
