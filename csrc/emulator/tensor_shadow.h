// What is known of each byte of the tensors of a launch: who wrote it (check), and whether it was touched (count).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulator/access.h"
#include "emulator/counters.h"
#include "emulator/launch.h"
#include "emulator/race_clock.h"

namespace fastconv::emulator {

// Memory that is zero at first and costs nothing where it is not touched.
class LazyMemory {
 public:
  explicit LazyMemory(size_t bytes);
  ~LazyMemory();
  LazyMemory(LazyMemory&& other) noexcept : bytes_(other.bytes_), memory_(other.memory_) { other.memory_ = nullptr; }
  LazyMemory(const LazyMemory&) = delete;
  LazyMemory& operator=(const LazyMemory&) = delete;
  LazyMemory& operator=(LazyMemory&&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  size_t bytes_;
  void* memory_;
};

// A tensor of a launch. All blocks share it, so its records are read and written as atomics.
class TensorShadow {
 public:
  struct Conflict {
    bool found = false;
    bool same_block = false;
    Access earlier = Access::load;
    bool many_blocks = false;  // several blocks read it: then block and thread are unknown, as thread is for any load
    uint64_t block = 0;        // low 30 bits of its number
    uint32_t thread = 0;
  };

  TensorShadow(const MemoryRange& range, bool check, bool count);

  bool holds(uintptr_t address, size_t bytes) const { return address >= begin && address + bytes <= end; }

  // Who else wrote these bytes in this launch, unordered with the access, or which other block read what is written
  // now? `trusts_other_blocks`: the block has synchronised with others, so what they wrote may be read.
  Conflict access(const RaceClock& clock, uintptr_t address, uint32_t bytes, Access kind, uint64_t block,
                  uint32_t thread, bool trusts_other_blocks) const;

  enum class Touch { loaded, stored, streamed };  // streamed: loaded, and not to be kept in the cache
  void touch(uintptr_t address, uint32_t bytes, Touch how) const;
  uint64_t touched_bytes(Touch how) const;
  std::vector<SectorRun> touched_sectors(Touch how) const;

  const std::string name;
  const uintptr_t begin, end;
  const bool writable;

 private:
  unsigned char* touched(Touch how) const {
    return (how == Touch::loaded ? loaded_ : how == Touch::stored ? stored_ : streamed_).as<unsigned char>();
  }

  LazyMemory writers_;                     // a record a byte, where written memory is checked
  LazyMemory readers_;                     // likewise: block + 1 of the one block that has read the byte, or kMany
  LazyMemory loaded_, stored_, streamed_;  // a bit a byte, where counted
};

}  // namespace fastconv::emulator
