// Loads of what is read once. Their lines are the first to leave the second-level cache (ld.global.cs), so that what
// other kernels wrote or will read stays there.
#pragma once

#include "ptx/vector.h"

#if FASTCONV_EMULATOR
#include "emulator/observe_streaming.h"
#endif

namespace fastconv::ptx {

// source: count elements in global memory, aligned to their common size of 1, 2, 4, 8 or 16 bytes.
template <int count, class T>
__device__ __forceinline__ Vector<T, count> load_streaming(const T* source) {
#if FASTCONV_EMULATOR
  emulator::observe_streaming(source, sizeof(T) * count);
  return load_vector<count>(source);
#else
  using Bits = typename detail::BitsOf<sizeof(T) * count>::type;
  return detail::reinterpret_bits<Vector<T, count> >(__ldcs(reinterpret_cast<const Bits*>(source)));
#endif
}

}  // namespace fastconv::ptx
