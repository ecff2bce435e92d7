// A value that is computed where it stands, once.
#pragma once

#include "ptx/device.h"

namespace fastconv::ptx {

// value, an integer of 32 or 64 bits, as if it came from memory. nvcc moves what only a branch inside of a loop needs
// into the branch, divisions and all, and computes it again each time.
template <class T>
__device__ __forceinline__ T keep(T value) {
#if !FASTCONV_EMULATOR
  if constexpr (sizeof(T) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
#endif
  return value;
}

}  // namespace fastconv::ptx
