// Several neighbouring elements moved by one instruction. A plain struct copy is split into element accesses by both
// compilers; these are one access of 1, 2, 4, 8 or 16 bytes in SASS and in the emulator's counts.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastconv::ptx {

template <class T, int count>
struct alignas(sizeof(T) * count) Vector {
  T elements[count];

  __host__ __device__ __forceinline__ T& operator[](int i) { return elements[i]; }
  __host__ __device__ __forceinline__ const T& operator[](int i) const { return elements[i]; }
};

namespace detail {

#if FASTCONV_EMULATOR
typedef uint32_t Bits8 __attribute__((vector_size(8), may_alias));
typedef uint32_t Bits16 __attribute__((vector_size(16), may_alias));
typedef uint8_t Bits1 __attribute__((may_alias));
typedef uint16_t Bits2 __attribute__((may_alias));
typedef uint32_t Bits4 __attribute__((may_alias));
#else
using Bits1 = uint8_t;
using Bits2 = uint16_t;
using Bits4 = uint32_t;
using Bits8 = uint2;
using Bits16 = uint4;
#endif

template <int bytes>
struct BitsOf;
template <>
struct BitsOf<1> {
  using type = Bits1;
};
template <>
struct BitsOf<2> {
  using type = Bits2;
};
template <>
struct BitsOf<4> {
  using type = Bits4;
};
template <>
struct BitsOf<8> {
  using type = Bits8;
};
template <>
struct BitsOf<16> {
  using type = Bits16;
};

// By value: from a reference to memory nvcc would copy bytes.
template <class To, class From>
__device__ __forceinline__ To reinterpret_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace detail

// source: count elements, aligned to their common size; global or shared memory.
template <int count, class T>
__device__ __forceinline__ Vector<T, count> load_vector(const T* source) {
  using Bits = typename detail::BitsOf<sizeof(T) * count>::type;
  return detail::reinterpret_bits<Vector<T, count>>(*reinterpret_cast<const Bits*>(source));
}

// The same from global memory that nobody writes during the launch, through the read-only path.
template <int count, class T>
__device__ __forceinline__ Vector<T, count> load_vector_read_only(const T* __restrict__ source) {
  using Bits = typename detail::BitsOf<sizeof(T) * count>::type;
  return detail::reinterpret_bits<Vector<T, count>>(__ldg(reinterpret_cast<const Bits*>(source)));
}

template <int count, class T>
__device__ __forceinline__ void store_vector(T* destination, const Vector<T, count>& value) {
  using Bits = typename detail::BitsOf<sizeof(T) * count>::type;
  *reinterpret_cast<Bits*>(destination) = detail::reinterpret_bits<Bits>(value);
}

}  // namespace fastconv::ptx
