// csrc/common for the tests: conversions and divisions of whole arrays.
#include <cstdint>

#include "common/fast_division.h"
#include "common/numeric.h"

using fastconv::BFloat16;
using fastconv::FastDivider;
using fastconv::Half;
using fastconv::Numeric;

namespace {

template <typename Word>
void divide(const Word* dividends, int64_t count, Word divisor, Word* quotients) {
  FastDivider<Word> divider(divisor);
  for (int64_t i = 0; i < count; ++i) quotients[i] = divider.divide(dividends[i]);
}

}  // namespace

extern "C" {

bool has_hardware_halves() {
#if defined(__F16C__)
  return true;
#else
  return false;
#endif
}

void half_to_float(const uint16_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = Numeric<Half>::load(Half{from[i]});
}

void bfloat16_to_float(const uint16_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = Numeric<BFloat16>::load(BFloat16{from[i]});
}

void float_to_half(const float* from, int64_t count, uint16_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = Numeric<Half>::store(from[i]).bits;
}

void float_to_bfloat16(const float* from, int64_t count, uint16_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = Numeric<BFloat16>::store(from[i]).bits;
}

void divide32(const uint32_t* dividends, int64_t count, uint32_t divisor, uint32_t* quotients) {
  divide(dividends, count, divisor, quotients);
}

void divide64(const uint64_t* dividends, int64_t count, uint64_t divisor, uint64_t* quotients) {
  divide(dividends, count, divisor, quotients);
}

}  // extern "C"
