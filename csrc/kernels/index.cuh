// Strides and offsets in the width that the launch chose: int32_t, or int64_t where an operand spans 2^31 elements.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/host_device.h"
#include "common/problem.h"

namespace fastconv {

// Offsets wrap around by rule where a position outside the tensor is computed and then not used.
template <typename Index>
using Unsigned = typename std::make_unsigned<Index>::type;

// Blocks of 128 threads that share a multiprocessor, which sets how many registers a thread may have: 128, or 168 for
// sums in float64, or 255 for offsets of 64 bits.
template <typename Value, typename Index>
constexpr int kResidentBlocks = sizeof(Index) == 8   ? 2
                                : sizeof(Value) == 8 ? 3
                                                     : 4;

template <typename Index>
struct Strides {
  Index batch, channel, row, column;

  static Strides of(const Operand& operand) {
    return {static_cast<Index>(operand.strides[0]), static_cast<Index>(operand.strides[1]),
            static_cast<Index>(operand.strides[2]), static_cast<Index>(operand.strides[3])};
  }
};

template <typename Index>
FASTCONV_HOST_DEVICE inline Unsigned<Index> offset_of(const Strides<Index>& strides, Unsigned<Index> n,
                                                      Unsigned<Index> channel, Unsigned<Index> row,
                                                      Unsigned<Index> column) {
  return n * strides.batch + channel * strides.channel + row * strides.row + column * strides.column;
}

// 0 <= position < size in one comparison.
template <typename Index>
FASTCONV_HOST_DEVICE inline bool is_inside(Index position, Index size) {
  return static_cast<Unsigned<Index>>(position) < static_cast<Unsigned<Index>>(size);
}

}  // namespace fastconv
