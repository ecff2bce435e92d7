// Stores of 16 bytes to global memory. Where a pointer has been through arithmetic that hides its alignment or its
// state space, nvcc makes four stores of an ordinary one, or a generic one, for all that its type says.
#pragma once

#include <cstdint>

#include "ptx/vector.h"

namespace fastconv::ptx {

// destination: count elements of 16 bytes together, aligned to 16, in global memory.
template <int count, class T>
__device__ __forceinline__ void store_global(T* destination, const Vector<T, count>& value) {
  static_assert(sizeof(T) * count == 16, "st.global.v4.b32 moves 16 bytes");
#if FASTCONV_EMULATOR
  store_vector(destination, value);
#else
  const auto bits = detail::reinterpret_bits<detail::Bits16>(value);
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(destination)), "r"(bits.x),
               "r"(bits.y), "r"(bits.z), "r"(bits.w)
               : "memory");
#endif
}

// The same where `is_wanted`, without a branch round it. Else destination may be any.
template <int count, class T>
__device__ __forceinline__ void store_global_if(bool is_wanted, T* destination, const Vector<T, count>& value) {
  static_assert(sizeof(T) * count == 16, "st.global.v4.b32 moves 16 bytes");
#if FASTCONV_EMULATOR
  if (is_wanted) store_vector(destination, value);
#else
  const auto bits = detail::reinterpret_bits<detail::Bits16>(value);
  asm volatile(
      "{\n"
      ".reg .pred is_wanted;\n"
      "setp.ne.s32 is_wanted, %5, 0;\n"
      "@is_wanted st.global.v4.b32 [%0], {%1, %2, %3, %4};\n"
      "}" ::"l"(__cvta_generic_to_global(destination)),
      "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w), "r"(static_cast<int>(is_wanted))
      : "memory");
#endif
}

}  // namespace fastconv::ptx
