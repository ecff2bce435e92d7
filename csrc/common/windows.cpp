#include "common/windows.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace fastconv {
namespace {

// Of a dividend that may be negative.
int64_t floor_division(int64_t dividend, int64_t divisor) {
  return dividend / divisor - (dividend % divisor < 0);
}

}  // namespace

int64_t Windows::reached() const {
  const int64_t direct = reached_directly();
  const bool repeats = padding_mode == PaddingMode::reflect || padding_mode == PaddingMode::replicate ||
                       padding_mode == PaddingMode::circular;
  if (direct == size || !repeats) return direct;
  std::set<int64_t> repeated;
  const auto look = [&](int64_t position) {
    if (is_under_a_window(position) && !is_under_a_window(source(position))) repeated.insert(source(position));
  };
  if (padding_mode == PaddingMode::replicate) {
    // Only two positions are repeated, however much padding there is: the outermost taps tell whether they are read.
    for (int64_t position : {-low, (count - 1) * stride + (taps - 1) * dilation - low}) {
      if (position < 0 || position >= size) look(position);
    }
  } else {
    for (int64_t beyond = 0; beyond < low + high; ++beyond) look(beyond < low ? beyond - low : size + beyond - low);
  }
  return direct + static_cast<int64_t>(repeated.size());
}

int64_t Windows::reached_directly() const {
  // Taps whose distance is a multiple of the stride reach positions of one progression, other taps never meet them.
  const int64_t period = stride / std::gcd(stride, dilation);
  int64_t reached = 0;
  for (int64_t first_tap = 0; first_tap < std::min(period, taps); ++first_tap) {
    int64_t uncounted = 0;
    for (int64_t tap = first_tap; tap < taps; tap += period) {
      const int64_t at = tap * dilation - low;
      int64_t first = at + stride * std::max<int64_t>(0, -floor_division(at, stride));
      const int64_t last = at + stride * std::min(count - 1, floor_division(size - 1 - at, stride));
      first = std::max(first, uncounted);
      if (last < first) continue;
      reached += (last - first) / stride + 1;
      uncounted = last + stride;
    }
  }
  return reached;
}

bool Windows::is_under_a_window(int64_t position) const {
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t distance = position + low - tap * dilation;
    if (distance >= 0 && distance % stride == 0 && distance / stride < count) return true;
  }
  return false;
}

int64_t Windows::source(int64_t position) const {
  if (padding_mode == PaddingMode::circular) return position < 0 ? position + size : position - size;
  if (padding_mode == PaddingMode::reflect) return position < 0 ? -position : 2 * (size - 1) - position;
  return std::clamp<int64_t>(position, 0, size - 1);
}

}  // namespace fastconv
