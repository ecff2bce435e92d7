#include "common/cost.h"

#include <algorithm>
#include <cmath>

#include "common/multiply_add_rate.h"

namespace fastconv {
namespace {

constexpr double kLaunchSeconds = 3e-6;
constexpr double kClockHertz = 1.5e9;

// From NVIDIA's data sheets; between generations the older one's figures stand.
double bytes_per_second(int capability) {
  switch (capability) {
    case 80:
      return 1.5e12;
    case 90:
      return 3.3e12;
    case 100:
      return 7e12;
    default:
      return 0.8e12;
  }
}

}  // namespace

double predict_seconds(const Work& work, DataType dtype, const Target& target) {
  double waves = std::ceil(std::max(work.blocks, 1.0) / target.multiprocessors);
  double share_of_device = std::max(work.blocks, 1.0) / (waves * target.multiprocessors);
  double peak = multiply_adds_per_clock(dtype, target.capability) * kClockHertz * target.multiprocessors;
  double computing = work.multiply_adds / (peak * work.efficiency * share_of_device);
  double moving = work.bytes / bytes_per_second(target.capability);
  double running = std::max(computing, moving) + work.exposed * std::min(computing, moving);
  // Below the time of a launch all are equal, and the first of a family's configurations is as good as any.
  return std::max(kLaunchSeconds, running);
}

}  // namespace fastconv
