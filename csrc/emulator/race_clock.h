// Which accesses of a block's threads are ordered by synchronisation: vector clocks, cheap where blocks are simple.
//
// Time counts the synchronisations of the block. seen(t, u) is the time up to which everything that thread u did
// happens before what thread t does now. A barrier of the whole block orders all before it with all after it, so it
// needs no table: it starts an epoch, and whatever is older than the epoch is ordered. Lanes that meet, named barriers
// and message channels enter their order in the table, which is forgotten at the next epoch.
#pragma once

#include <cstdint>
#include <vector>

#include "emulator/thread.h"

namespace fastconv::emulator {

class RaceClock {
 public:
  using Time = uint32_t;

  // What threads have released into something that others acquire from: a named barrier, later an mbarrier.
  struct Channel {
    uint32_t epoch = 0;
    std::vector<Time> seen;
  };

  // Times of an earlier block lie before block_start(). False where time ran out and began anew: then all that
  // remembers times must be forgotten.
  bool begin_block(int threads);

  Time now() const { return now_; }
  Time block_start() const { return block_start_; }
  Time epoch_start() const { return epoch_start_; }

  // Does what `earlier` did at `time` happen before what `thread` does now?
  bool ordered(uint32_t earlier, Time time, uint32_t thread) const {
    if (time < epoch_start_ || earlier == thread) return true;
    const Row& row = rows_[thread];
    if (row.epoch != epoch_) return false;
    if (!row.wide && earlier / kWarpSize != thread / kWarpSize) return false;
    return time <= seen_[thread * threads_ + earlier];
  }

  void block_met();
  void lanes_met(uint32_t warp, uint32_t lanes);
  void release(uint32_t thread, Channel& channel);
  void acquire(uint32_t thread, const Channel& channel);
  void tick() { ++now_; }

 private:
  struct Row {
    uint32_t epoch;  // the row is valid in this epoch only
    bool wide;       // knows of other warps; else only the entries of the own warp are valid
  };

  Time* valid_row(uint32_t thread, bool wide);

  uint32_t threads_ = 0;
  uint32_t epoch_ = 0;
  Time now_ = 1, block_start_ = 1, epoch_start_ = 1;
  std::vector<Row> rows_;
  std::vector<Time> seen_;  // [thread][other]
};

}  // namespace fastconv::emulator
