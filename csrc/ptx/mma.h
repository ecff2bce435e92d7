// mma.sync: D = A B + D by a warp, over a grid of 16x8 tiles at once. With g = lane / 4 and t = lane % 4 a lane holds
// of
//
//   A  m16k16, 16 bit: element i at (g + 8 ((i / 2) % 2), 2t + i % 2 + 8 (i / 4))    m16k8, TF32: (g + 8 (i % 2), t + 4
//   (i / 2)) B  k16n8, 16 bit:  element i at (2t + i % 2 + 8 (i / 2), g)                      k8n8, TF32:  (t + 4 i, g)
//   D  m16n8:          element i at (g + 8 (i / 2), 2t + i % 2)
//
// two 16-bit elements a register, the even one in the low half. The grid is one meeting of the warp in the emulator, so
// that the cost of a meeting is shared, and a plain unrolled loop on the device.
#pragma once

#include <cstdint>

#include "common/numeric.h"
#include "ptx/cp_async.h"

#if FASTCONV_EMULATOR
#include "emulator/tensor_core.h"
#endif

namespace fastconv::ptx {

// A float32 whose low 13 bits the tensor core does not see.
struct Tf32 {
  uint32_t bits;
};

// The nearest TF32 number, ties away from zero; infinity and NaN stay what they are.
__device__ __forceinline__ uint32_t round_to_tf32(uint32_t bits) {
#if FASTCONV_EMULATOR
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
#else
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "r"(bits));
  return rounded;
#endif
}

#if !FASTCONV_EMULATOR
template <class Element>
__device__ __forceinline__ void multiply_add_16x8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (sizeof(Element) == 4) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else if constexpr (std::is_same<Element, Half>::value) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}
#endif

// d[m][n] += a[m] b[n]. Element: Half or BFloat16 (k = 16), Tf32 (k = 8).
template <class Element, int rows, int columns>
__device__ __forceinline__ void multiply_add(float (&d)[rows][columns][4], const uint32_t (&a)[rows][4],
                                             const uint32_t (&b)[columns][2]) {
#if FASTCONV_EMULATOR
  constexpr auto kind = sizeof(Element) == 4                 ? emulator::MmaKind::tf32
                        : std::is_same<Element, Half>::value ? emulator::MmaKind::float16
                                                             : emulator::MmaKind::bfloat16;
  emulator::multiply_add({kind, rows, columns, &d[0][0][0], &a[0][0], &b[0][0]});
#else
#pragma unroll
  for (int m = 0; m < rows; ++m) {
#pragma unroll
    for (int n = 0; n < columns; ++n) multiply_add_16x8<Element>(d[m][n], a[m], b[n]);
  }
#endif
}

}  // namespace fastconv::ptx
