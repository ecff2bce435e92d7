// Counts the memory requests of one worker's blocks.
//
// A kernel under emulation runs thread by thread, so the lanes of a warp come to an instruction one after the other.
// The n-th execution of an instruction by each lane is one request. Where the whole warp or block meets, lanes stand at
// the same place, so the count n begins anew: what a lane skipped before does not shift it against the others
// afterwards.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulator/access.h"
#include "emulator/thread.h"

namespace fastconv::emulator {

// What an instruction accesses. Sites are numbers that find the instruction again.
struct AccessKey {
  uint32_t site;
  uint16_t target;
  bool shared;
  Access kind;
  uint8_t width;

  bool operator<(const AccessKey& other) const { return packed() < other.packed(); }
  uint64_t packed() const {
    return uint64_t{site} << 32 | uint64_t{target} << 16 | uint64_t{shared} << 15 | uint64_t{width} << 8 |
           static_cast<uint64_t>(kind);
  }
};

struct AccessTotals {
  uint64_t accesses = 0, requests = 0, sectors = 0, wavefronts = 0, ideal_wavefronts = 0;

  AccessTotals& operator+=(const AccessTotals& other);
};

class AccessCounter {
 public:
  void count(const AccessKey& key, uint32_t thread, uintptr_t address);
  // All lanes of the warp, or all threads of the block, stand at the same place.
  void warp_met(uint32_t warp);
  void block_met();

  void count_operation(const std::string& name, uint64_t count) { operations_[name] += count; }

  // Adds everything to the totals of the launch and forgets it.
  void drain(std::map<AccessKey, AccessTotals>& totals, std::map<std::string, uint64_t>& operations);

 private:
  struct Request {
    uint32_t lanes = 0;
    std::array<uintptr_t, kWarpSize> address;
  };
  struct OpenRequests {                      // of one warp at one instruction
    std::array<uint32_t, kWarpSize> done{};  // executions by lane
    std::vector<Request> requests;
  };
  struct Warp {
    std::vector<OpenRequests> open;  // by instruction
    std::vector<uint32_t> in_use;    // instructions with open requests
  };

  uint32_t index_of(const AccessKey& key);
  static void tally(const AccessKey& key, const Request& request, AccessTotals& totals);

  std::unordered_map<uint64_t, uint32_t> index_;
  std::vector<AccessKey> keys_;
  std::vector<AccessTotals> totals_;
  uint64_t last_key_ = ~uint64_t{0};
  uint32_t last_index_ = 0;
  std::array<Warp, kMaxWarps> warps_;
  std::map<std::string, uint64_t> operations_;
};

}  // namespace fastconv::emulator
