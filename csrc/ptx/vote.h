// Votes, matches and integer reductions of a warp, as CUDA names them.
#pragma once

#if FASTCONV_EMULATOR
#include <cstdint>
#include <cstring>

#include "emulator/cuda_language.h"
#include "emulator/scheduler.h"

namespace fastconv::emulator {

struct VoteLane {
  uint64_t value;   // what this lane brings
  uint64_t result;  // set by the last lane to arrive
};

extern const WarpOperation kBallot, kMatchAny, kReduceAdd, kReduceAnd, kReduceOr, kReduceXor;
extern const WarpOperation kReduceMinSigned, kReduceMaxSigned, kReduceMinUnsigned, kReduceMaxUnsigned;

__forceinline__ uint64_t vote(uint32_t mask, const WarpOperation& operation, uint64_t value) {
  VoteLane lane{value, 0};
  meet_lanes(mask, operation, &lane);
  return lane.result;
}

// The ballot in the low half, the lanes that voted in the high half.
__forceinline__ uint64_t ballot(uint32_t mask, bool predicate) {
  return vote(mask, kBallot, predicate);
}

template <class T>
__forceinline__ uint64_t bits_of(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "matches compare 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

}  // namespace fastconv::emulator

__forceinline__ unsigned int __ballot_sync(unsigned int mask, int predicate) {
  return static_cast<unsigned int>(fastconv::emulator::ballot(mask, predicate != 0));
}
__forceinline__ int __any_sync(unsigned int mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
__forceinline__ int __all_sync(unsigned int mask, int predicate) {
  return __ballot_sync(mask, predicate == 0) == 0;
}

template <class T>
__forceinline__ unsigned int __match_any_sync(unsigned int mask, T value) {
  using namespace fastconv::emulator;
  return static_cast<unsigned int>(vote(mask, kMatchAny, bits_of(value)));
}
template <class T>
__forceinline__ unsigned int __match_all_sync(unsigned int mask, T value, int* all_equal) {
  const unsigned int equal = __match_any_sync(mask, value);
  const uint64_t different = fastconv::emulator::ballot(mask, equal == 0);
  *all_equal = equal == static_cast<unsigned int>(different >> 32);
  return *all_equal ? equal : 0;
}

// Reductions exist for int and unsigned int, the bitwise ones for unsigned int (sm_80).
__forceinline__ unsigned int __reduce_add_sync(unsigned int mask, unsigned int value) {
  return static_cast<unsigned int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceAdd, value));
}
__forceinline__ int __reduce_add_sync(unsigned int mask, int value) {
  return static_cast<int>(__reduce_add_sync(mask, static_cast<unsigned int>(value)));
}
__forceinline__ unsigned int __reduce_min_sync(unsigned int mask, unsigned int value) {
  return static_cast<unsigned int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceMinUnsigned, value));
}
__forceinline__ int __reduce_min_sync(unsigned int mask, int value) {
  return static_cast<int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceMinSigned, value));
}
__forceinline__ unsigned int __reduce_max_sync(unsigned int mask, unsigned int value) {
  return static_cast<unsigned int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceMaxUnsigned, value));
}
__forceinline__ int __reduce_max_sync(unsigned int mask, int value) {
  return static_cast<int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceMaxSigned, value));
}
__forceinline__ unsigned int __reduce_and_sync(unsigned int mask, unsigned int value) {
  return static_cast<unsigned int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceAnd, value));
}
__forceinline__ unsigned int __reduce_or_sync(unsigned int mask, unsigned int value) {
  return static_cast<unsigned int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceOr, value));
}
__forceinline__ unsigned int __reduce_xor_sync(unsigned int mask, unsigned int value) {
  return static_cast<unsigned int>(fastconv::emulator::vote(mask, fastconv::emulator::kReduceXor, value));
}
#endif
