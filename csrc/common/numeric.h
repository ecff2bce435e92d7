// The number types of tensors, and the type each is computed in. The storage types are two bytes with no arithmetic of
// their own: a kernel converts once when it loads and once when it stores. Conversions round to nearest even and keep
// NaN a NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace fastconv {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

FASTCONV_HOST_DEVICE inline float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

FASTCONV_HOST_DEVICE inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

namespace portable {

inline float to_float(Half number) {
  uint32_t sign = (number.bits & 0x8000u) << 16;
  uint32_t magnitude = number.bits & 0x7fffu;
  if (magnitude < 0x0400u) {  // zero or subnormal: a multiple of 2^-24, exact in float32
    return float_from_bits(sign | bits_of(static_cast<float>(magnitude) * 0x1p-24f));
  }
  uint32_t exponent_shift = magnitude < 0x7c00u ? (127u - 15u) << 23 : (255u - 31u) << 23;
  return float_from_bits(sign | ((magnitude << 13) + exponent_shift));
}

inline Half to_half(float value) {
  uint32_t bits = bits_of(value);
  uint32_t sign = (bits >> 16) & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {  // 65536 and above
    result = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14 the spacing is 2^-24, which is that of floats in [0.5, 1)
    result = bits_of(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    uint32_t is_odd = (magnitude >> 13) & 1u;
    result = (magnitude - ((127u - 15u) << 23) + 0xfffu + is_odd) >> 13;
  }
  return Half{static_cast<uint16_t>(sign | result)};
}

inline BFloat16 to_bfloat16(float value) {
  uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return BFloat16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return BFloat16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace portable

#if !defined(__CUDA_ARCH__) && defined(__F16C__)
// The processor's own conversions, by the compiler's builtins: <immintrin.h> has as many lines as all else that a
// source includes.
namespace f16c {

using Halves = short __attribute__((vector_size(16)));
using Floats = float __attribute__((vector_size(16)));

inline float to_float(Half number) {
  return __builtin_ia32_vcvtph2ps(Halves{static_cast<short>(number.bits)})[0];
}

inline Half to_half(float value) {
  return Half{static_cast<uint16_t>(__builtin_ia32_vcvtps2ph(Floats{value}, 0)[0])};  // 0: to nearest even
}

}  // namespace f16c
#endif

// Numeric<T>::Accumulator is what T is summed in: float64 for float64, float32 for everything smaller.
template <typename T>
struct Numeric;

template <>
struct Numeric<double> {
  using Accumulator = double;
  FASTCONV_HOST_DEVICE static double load(double value) { return value; }
  FASTCONV_HOST_DEVICE static double store(double value) { return value; }
};

template <>
struct Numeric<float> {
  using Accumulator = float;
  FASTCONV_HOST_DEVICE static float load(float value) { return value; }
  FASTCONV_HOST_DEVICE static float store(float value) { return value; }
};

template <>
struct Numeric<Half> {
  using Accumulator = float;

  FASTCONV_HOST_DEVICE static float load(Half value) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#elif defined(__F16C__)
    return f16c::to_float(value);
#else
    return portable::to_float(value);
#endif
  }

  FASTCONV_HOST_DEVICE static Half store(float value) {
#if defined(__CUDA_ARCH__)
    Half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#elif defined(__F16C__)
    return f16c::to_half(value);
#else
    return portable::to_half(value);
#endif
  }
};

template <>
struct Numeric<BFloat16> {
  using Accumulator = float;

  FASTCONV_HOST_DEVICE static float load(BFloat16 value) {
    return float_from_bits(static_cast<uint32_t>(value.bits) << 16);
  }

  FASTCONV_HOST_DEVICE static BFloat16 store(float value) {
#if defined(__CUDA_ARCH__)
    BFloat16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    return portable::to_bfloat16(value);
#endif
  }
};

template <typename T>
using AccumulatorOf = typename Numeric<T>::Accumulator;

}  // namespace fastconv
