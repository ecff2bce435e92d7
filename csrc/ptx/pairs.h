// Two 16-bit floating-point numbers in a word, the first in its lower half: converted or compared by one instruction.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/numeric.h"
#include "ptx/vector.h"

namespace fastconv::ptx {

// The lower halves of two words, and the upper ones, the first's in the lower half of the result.
__device__ __forceinline__ uint32_t lower_halves(uint32_t first, uint32_t second) {
#if FASTCONV_EMULATOR
  return (first & 0xffffu) | second << 16;
#else
  return __byte_perm(first, second, 0x5410);
#endif
}
__device__ __forceinline__ uint32_t upper_halves(uint32_t first, uint32_t second) {
#if FASTCONV_EMULATOR
  return first >> 16 | (second & 0xffff0000u);
#else
  return __byte_perm(first, second, 0x7632);
#endif
}

// Both rounded to nearest even.
template <class T>
__device__ __forceinline__ Vector<T, 2> to_pair(float first, float second) {
  static_assert(sizeof(T) == 2, "a pair of 16-bit numbers");
#if FASTCONV_EMULATOR
  return {{Numeric<T>::store(first), Numeric<T>::store(second)}};
#else
  uint32_t bits;
  if constexpr (std::is_same_v<T, Half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  }
  return detail::reinterpret_bits<Vector<T, 2> >(bits);
#endif
}

// The greater of each two; a NaN where either is one.
template <class T>
__device__ __forceinline__ Vector<T, 2> maximum_of_pairs(Vector<T, 2> a, Vector<T, 2> b) {
  static_assert(sizeof(T) == 2, "pairs of 16-bit numbers");
#if FASTCONV_EMULATOR
  Vector<T, 2> result;
  for (int i = 0; i < 2; ++i) {
    const float x = Numeric<T>::load(a[i]), y = Numeric<T>::load(b[i]);
    const bool is_nan = x != x || y != y;
    result[i] = is_nan ? T{0x7fff} : x > y || (x == y && !(a[i].bits & 0x8000u)) ? a[i] : b[i];
  }
  return result;
#else
  const uint32_t x = detail::reinterpret_bits<uint32_t>(a), y = detail::reinterpret_bits<uint32_t>(b);
  uint32_t bits;
  if constexpr (std::is_same_v<T, Half>) {
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(bits) : "r"(x), "r"(y));
  } else {
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(bits) : "r"(x), "r"(y));
  }
  return detail::reinterpret_bits<Vector<T, 2> >(bits);
#endif
}

}  // namespace fastconv::ptx
