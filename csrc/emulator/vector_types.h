// CUDA's built-in vector types for a compiler that is not nvcc: same names, sizes and alignments.
#pragma once

#define FASTCONV_VECTOR_TYPES(scalar, name, size)                         \
  struct name##1 {                                                        \
    scalar x;                                                             \
  };                                                                      \
  struct alignas(2 * size) name##2 {                                      \
    scalar x, y;                                                          \
  };                                                                      \
  struct name##3 {                                                        \
    scalar x, y, z;                                                       \
  };                                                                      \
  struct alignas(4 * size > 16 ? 16 : 4 * size) name##4 {                 \
    scalar x, y, z, w;                                                    \
  };                                                                      \
  inline name##1 make_##name##1(scalar x) {                               \
    return {x};                                                           \
  }                                                                       \
  inline name##2 make_##name##2(scalar x, scalar y) {                     \
    return {x, y};                                                        \
  }                                                                       \
  inline name##3 make_##name##3(scalar x, scalar y, scalar z) {           \
    return {x, y, z};                                                     \
  }                                                                       \
  inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { \
    return {x, y, z, w};                                                  \
  }

FASTCONV_VECTOR_TYPES(signed char, char, 1)
FASTCONV_VECTOR_TYPES(unsigned char, uchar, 1)
FASTCONV_VECTOR_TYPES(short, short, 2)
FASTCONV_VECTOR_TYPES(unsigned short, ushort, 2)
FASTCONV_VECTOR_TYPES(int, int, 4)
FASTCONV_VECTOR_TYPES(unsigned int, uint, 4)
FASTCONV_VECTOR_TYPES(long long, longlong, 8)
FASTCONV_VECTOR_TYPES(unsigned long long, ulonglong, 8)
FASTCONV_VECTOR_TYPES(float, float, 4)
FASTCONV_VECTOR_TYPES(double, double, 8)

#undef FASTCONV_VECTOR_TYPES

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 sizes) : x(sizes.x), y(sizes.y), z(sizes.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
