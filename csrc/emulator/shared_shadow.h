// What is known of each byte of shared memory: who wrote it and who has read it since, and when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "emulator/access.h"
#include "emulator/race_clock.h"

namespace fastconv::emulator {

class SharedShadow {
 public:
  // What is wrong with an access.
  struct Finding {
    enum Kind { none, never_written, race } kind = none;
    uint32_t byte = 0;          // of the access
    uint32_t other_thread = 0;  // the earlier access of a race
    Access other = Access::load;
    uint32_t other_site = 0;
  };

  explicit SharedShadow(size_t bytes);
  ~SharedShadow();
  SharedShadow(const SharedShadow&) = delete;
  SharedShadow& operator=(const SharedShadow&) = delete;

  void forget();
  void begin_epoch() { readers_.clear(); }
  // A site is a number that finds the instruction again.
  Finding access(const RaceClock& clock, size_t offset, uint32_t bytes, Access kind, uint32_t thread, uint32_t site);
  // The bytes as if never written: the target of a copy that has not landed.
  void poison(size_t offset, size_t bytes);

 private:
  struct Cell {
    RaceClock::Time write_time;  // before the block's start: never written
    uint32_t write_site;
    RaceClock::Time read_time;  // of the latest read since the write; before the epoch: none that matters
    uint32_t read_site;
    uint16_t writer;  // kAtomic marks an atomic write
    uint16_t reader;
    uint32_t readers;  // 0: at most one reader; else where its list of readers begins
  };
  // The lanes of a warp that have read a byte, none of them ordered before another, and the latest time of them.
  struct WarpReaders {
    uint32_t lanes;
    RaceClock::Time time;
  };
  static constexpr uint16_t kAtomic = 0x8000;

  Finding read(const RaceClock& clock, Cell& cell, uint32_t thread, uint32_t site);
  Finding write(const RaceClock& clock, Cell& cell, uint32_t thread, uint32_t site, bool atomic);
  WarpReaders* list_of(Cell& cell);
  static void add_reader(const RaceClock& clock, WarpReaders& warp, uint32_t first, uint32_t thread,
                         RaceClock::Time time);

  size_t bytes_;
  Cell* cells_;
  std::vector<WarpReaders> readers_;  // lists of kMaxWarps, dropped at every epoch
};

}  // namespace fastconv::emulator
