#include "emulator/race_clock.h"

#include <algorithm>

namespace fastconv::emulator {

bool RaceClock::begin_block(int threads) {
  constexpr Time kLatest = Time{1} << 31;
  const bool in_time = now_ < kLatest;
  if (!in_time) now_ = 0;
  threads_ = static_cast<uint32_t>(threads);
  if (rows_.size() < threads_) rows_.resize(threads_);
  if (seen_.size() < static_cast<size_t>(threads_) * threads_) seen_.resize(static_cast<size_t>(threads_) * threads_);
  block_met();
  block_start_ = now_;
  return in_time;
}

void RaceClock::block_met() {
  epoch_start_ = ++now_;
  if (++epoch_ == 0) {  // wrapped: no row may pass for valid
    for (Row& row : rows_) row.epoch = 0;
    epoch_ = 1;
  }
}

RaceClock::Time* RaceClock::valid_row(uint32_t thread, bool wide) {
  Row& row = rows_[thread];
  Time* seen = &seen_[static_cast<size_t>(thread) * threads_];
  const uint32_t first = thread / kWarpSize * kWarpSize;
  const uint32_t last = std::min<uint32_t>(first + kWarpSize, threads_);
  if (row.epoch != epoch_) {
    row = {epoch_, false};
    std::fill(seen + first, seen + last, 0);
  }
  if (wide && !row.wide) {
    row.wide = true;
    std::fill(seen, seen + first, 0);
    std::fill(seen + last, seen + threads_, 0);
  }
  return seen;
}

void RaceClock::lanes_met(uint32_t warp, uint32_t lanes) {
  const uint32_t first = warp * kWarpSize;
  bool wide = false;
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const Row& row = rows_[first + static_cast<uint32_t>(__builtin_ctz(left))];
    wide = wide || (row.epoch == epoch_ && row.wide);
  }
  const uint32_t begin = wide ? 0 : first;
  const uint32_t end = wide ? threads_ : std::min<uint32_t>(first + kWarpSize, threads_);
  Time joined[kMaxThreads];
  std::fill(joined + begin, joined + end, 0);
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const uint32_t thread = first + static_cast<uint32_t>(__builtin_ctz(left));
    const Time* seen = valid_row(thread, wide);
    for (uint32_t other = begin; other < end; ++other) joined[other] = std::max(joined[other], seen[other]);
  }
  for (uint32_t left = lanes; left != 0; left &= left - 1)
    joined[first + static_cast<uint32_t>(__builtin_ctz(left))] = now_;
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const uint32_t thread = first + static_cast<uint32_t>(__builtin_ctz(left));
    std::copy(joined + begin, joined + end, valid_row(thread, wide) + begin);
  }
  tick();
}

void RaceClock::release(uint32_t thread, Channel& channel) {
  if (channel.epoch != epoch_) {
    channel.epoch = epoch_;
    channel.seen.assign(threads_, 0);
  }
  const Time* seen = valid_row(thread, true);
  for (uint32_t other = 0; other < threads_; ++other) channel.seen[other] = std::max(channel.seen[other], seen[other]);
  channel.seen[thread] = now_;
}

void RaceClock::acquire(uint32_t thread, const Channel& channel) {
  if (channel.epoch != epoch_) return;  // older than a barrier of the whole block
  Time* seen = valid_row(thread, true);
  for (uint32_t other = 0; other < threads_; ++other) seen[other] = std::max(seen[other], channel.seen[other]);
}

}  // namespace fastconv::emulator
