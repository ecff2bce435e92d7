// Who wins a window, for the kernels that see its elements a row, or a part, at a time: the element and its place.
#pragma once

#include "common/numeric.h"
#include "ptx/device.h"

namespace fastconv {

// value: what the element converts to, from which its own bits come back (NaN stays a NaN). place: where it lies.
template <typename Value>
struct PoolBest {
  Value value;
  int place;
};

template <typename Value>
__device__ __forceinline__ constexpr Value lowest_pool_value() {
  return -static_cast<Value>(INFINITY);
}

// Compares with an element that comes later in the window: the first of equal ones stands, the last NaN wins. What is
// not there is offered as -inf, which beats nothing.
template <typename Value>
__device__ __forceinline__ void take(PoolBest<Value>& best, Value value, int place) {
  if (value > best.value || value != value) {
    best.value = value;
    best.place = place;
  }
}

// The same for two that come in any order.
template <typename Value>
__device__ __forceinline__ void take_of_any_order(PoolBest<Value>& best, const PoolBest<Value>& other) {
  const bool is_nan = other.value != other.value, was_nan = best.value != best.value;
  const bool is_later = other.place > best.place;
  const bool wins = is_nan ? !was_nan || is_later
                           : !was_nan && (other.value > best.value || (other.value == best.value && !is_later));
  if (wins) best = other;
}

// The two windows of the kernels that are made for one: 2x2 with stride 2 and no padding, 3x3 with stride 2 and padding
// 1. Window p covers the rows 2p - kPadding + (0 .. kWindow - 1).
template <int kWindow>
constexpr int kWindowPadding = kWindow == 3 ? 1 : 0;

// Place of a window that is not there: no element has it.
constexpr int kNoWinner = 255;

// What backward needs of a window: its gradient and who won it.
template <typename Value>
struct PoolWinner {
  Value gradient;
  int place;

  __device__ __forceinline__ Value given_to(int element) const { return place == element ? gradient : Value{0}; }
};

// What two columns of two rows of dx get of the windows over them: of `own`, which begins there or one before, and for
// 3x3 of those to the right of it, below it and below that. Added in the order of the windows.
template <int kWindow, typename Value>
__device__ __forceinline__ void gather_gradients(Value (&upper)[2], Value (&lower)[2], const PoolWinner<Value>& own,
                                                 const PoolWinner<Value>& right, const PoolWinner<Value>& below,
                                                 const PoolWinner<Value>& corner) {
  constexpr Value kZero{0};
  if constexpr (kWindow == 3) {
    upper[0] = kZero + own.given_to(4);
    upper[1] = kZero + own.given_to(5) + right.given_to(3);
    lower[0] = kZero + own.given_to(7) + below.given_to(1);
    lower[1] = kZero + own.given_to(8) + right.given_to(6) + below.given_to(2) + corner.given_to(0);
  } else {
    upper[0] = kZero + own.given_to(0);
    upper[1] = kZero + own.given_to(1);
    lower[0] = kZero + own.given_to(2);
    lower[1] = kZero + own.given_to(3);
  }
}

}  // namespace fastconv
