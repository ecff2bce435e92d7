// Division by a number that is known before the launch, as a multiplication (Granlund and Montgomery, "Division by
// invariant integers using multiplication", 1994, figure 4.1). Exact for every dividend and every divisor from 1 of the
// word's range.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/host_device.h"

namespace fastconv {

FASTCONV_HOST_DEVICE inline uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

FASTCONV_HOST_DEVICE inline uint64_t multiply_high(uint64_t a, uint64_t b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

template <typename Word>
class FastDivider {
  static_assert(std::is_same<Word, uint32_t>::value || std::is_same<Word, uint64_t>::value, "an unsigned word");

 public:
  FastDivider() : FastDivider(1) {}

  // A divisor of 0, the size of an empty dimension, counts as 1: nothing is ever divided by it.
  explicit FastDivider(Word divisor) : divisor_(divisor == 0 ? 1 : divisor) {
    int bits = 0;  // ceil(log2(divisor))
    while (bits < kWordBits && (Word{1} << bits) < divisor_) ++bits;
    using DoubleWord = typename std::conditional<sizeof(Word) == 4, uint64_t, unsigned __int128>::type;
    DoubleWord excess = (DoubleWord{1} << bits) - divisor_;
    multiplier_ = static_cast<Word>((excess << kWordBits) / divisor_ + 1);
    first_shift_ = bits < 1 ? bits : 1;
    second_shift_ = bits < 1 ? 0 : bits - 1;
  }

  FASTCONV_HOST_DEVICE Word divisor() const { return divisor_; }

  FASTCONV_HOST_DEVICE Word divide(Word dividend) const {
    Word high = multiply_high(multiplier_, dividend);
    return (high + ((dividend - high) >> first_shift_)) >> second_shift_;
  }

  // Returns the quotient and leaves the remainder in `value`.
  FASTCONV_HOST_DEVICE Word split(Word& value) const {
    Word quotient = divide(value);
    value -= quotient * divisor_;
    return quotient;
  }

 private:
  static constexpr int kWordBits = 8 * sizeof(Word);

  Word divisor_;
  Word multiplier_;
  int first_shift_;
  int second_shift_;
};

// The divider for sizes that a kernel counts in `Index` (int32_t or int64_t).
template <typename Index>
using DividerOf = FastDivider<typename std::make_unsigned<Index>::type>;

}  // namespace fastconv
