// Warp shuffles, as CUDA names them. The emulated ones follow the PTX definition of shfl.sync.
#pragma once

#if FASTCONV_EMULATOR
#include <cstdint>
#include <cstring>

#include "emulator/cuda_language.h"
#include "emulator/scheduler.h"

namespace fastconv::emulator {

struct ShuffleLane {
  uint64_t value;   // what this lane offers
  int source;       // the lane it reads
  uint64_t result;  // set by the last lane to arrive
};

extern const WarpOperation kShuffle;

template <class T>
__forceinline__ T shuffle(uint32_t mask, T value, int source) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 2, 4 or 8 bytes");
  ShuffleLane lane{0, source, 0};
  std::memcpy(&lane.value, &value, sizeof(T));
  meet_lanes(mask, kShuffle, &lane);
  std::memcpy(&value, &lane.result, sizeof(T));
  return value;
}

__forceinline__ int lane_id() {
  return static_cast<int>(current_thread().rank % kWarpSize);
}

}  // namespace fastconv::emulator

// `width` splits the warp into segments; a source outside the own segment gives the own value.
template <class T>
__forceinline__ T __shfl_sync(unsigned int mask, T value, int source, int width = 32) {
  const int first = fastconv::emulator::lane_id() & ~(width - 1);
  return fastconv::emulator::shuffle(mask, value, first | (source & (width - 1)));
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned int mask, T value, unsigned int delta, int width = 32) {
  const int lane = fastconv::emulator::lane_id(), source = lane - static_cast<int>(delta & 31);
  return fastconv::emulator::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : lane);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned int mask, T value, unsigned int delta, int width = 32) {
  const int lane = fastconv::emulator::lane_id(), source = lane + static_cast<int>(delta & 31);
  return fastconv::emulator::shuffle(mask, value, source <= (lane | (width - 1)) ? source : lane);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned int mask, T value, int lane_mask, int width = 32) {
  const int lane = fastconv::emulator::lane_id(), source = lane ^ (lane_mask & 31);
  return fastconv::emulator::shuffle(mask, value, source <= (lane | (width - 1)) ? source : lane);
}
#endif
