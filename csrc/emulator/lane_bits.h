// Sets of lanes, or of warps, as the bits of a word.
#pragma once

#include <cstdint>

namespace fastconv::emulator {

constexpr uint32_t bit(uint32_t position) {
  return uint32_t{1} << position;
}
// Where the lowest bit is; there must be one.
inline uint32_t lowest(uint32_t bits) {
  return static_cast<uint32_t>(__builtin_ctz(bits));
}
// The bits above a position below 32.
constexpr uint32_t above(uint32_t bits, uint32_t position) {
  return bits & ~((uint32_t{2} << position) - 1);
}

}  // namespace fastconv::emulator
