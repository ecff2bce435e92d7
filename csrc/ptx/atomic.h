// Atomic read-modify-write, as CUDA names it, on global and shared memory.
#pragma once

#if FASTCONV_EMULATOR
#include <cstdint>
#include <type_traits>

#include "emulator/cuda_language.h"
#include "emulator/observe.h"

namespace fastconv::emulator {

// Not instrumented: the whole update is one atomic access, and is reported as one.
#if FASTCONV_EMULATOR_CHECKED
#define FASTCONV_ATOMIC_FUNCTION __attribute__((noinline, no_sanitize("thread")))
#else
#define FASTCONV_ATOMIC_FUNCTION __attribute__((always_inline)) inline
#endif

// The old value; `combine` gives the new one. A loop on compare-and-swap serves every operation and every 4- or 8-byte
// type.
template <class T, class Combine>
FASTCONV_ATOMIC_FUNCTION T atomic_update(T* address, const Combine& combine) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  static_assert(sizeof(T) == sizeof(Bits), "atomics work on 4 or 8 bytes");
  observe_access(address, sizeof(T), Access::atomic, FASTCONV_CALLED_FROM);
  Bits* place = reinterpret_cast<Bits*>(address);
  Bits old_bits = __atomic_load_n(place, __ATOMIC_RELAXED);
  for (;;) {
    T old_value;
    __builtin_memcpy(&old_value, &old_bits, sizeof(T));
    const T new_value = combine(old_value);
    Bits new_bits;
    __builtin_memcpy(&new_bits, &new_value, sizeof(T));
    if (__atomic_compare_exchange_n(place, &old_bits, new_bits, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return old_value;
    }
  }
}

// Keeps T from being deduced from the value, so that atomicAdd(&counter, 1) works for an unsigned counter.
template <class T>
using Same = std::common_type_t<T>;

#undef FASTCONV_ATOMIC_FUNCTION

}  // namespace fastconv::emulator

template <class T>
__forceinline__ T atomicAdd(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
__forceinline__ T atomicSub(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return static_cast<T>(old - value); });
}
template <class T>
__forceinline__ T atomicExch(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T) { return value; });
}
template <class T>
__forceinline__ T atomicMin(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
__forceinline__ T atomicMax(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
__forceinline__ T atomicAnd(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return static_cast<T>(old & value); });
}
template <class T>
__forceinline__ T atomicOr(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return static_cast<T>(old | value); });
}
template <class T>
__forceinline__ T atomicXor(T* address, fastconv::emulator::Same<T> value) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return static_cast<T>(old ^ value); });
}
template <class T>
__forceinline__ T atomicCAS(T* address, fastconv::emulator::Same<T> expected, fastconv::emulator::Same<T> desired) {
  return fastconv::emulator::atomic_update(address, [=](T old) { return old == expected ? desired : old; });
}
__forceinline__ unsigned int atomicInc(unsigned int* address, unsigned int last) {
  return fastconv::emulator::atomic_update(address, [=](unsigned int old) { return old >= last ? 0u : old + 1u; });
}
__forceinline__ unsigned int atomicDec(unsigned int* address, unsigned int last) {
  return fastconv::emulator::atomic_update(address,
                                           [=](unsigned int old) { return old == 0u || old > last ? last : old - 1u; });
}
#endif
