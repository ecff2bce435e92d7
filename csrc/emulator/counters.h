// What a launch did, as count mode saw it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "emulator/access.h"
#include "emulator/vector_types.h"

namespace fastconv::emulator {

constexpr uintptr_t kSectorBytes = 32;

// One instruction on one target. A request is what the lanes of a warp ask for together.
struct AccessRecord {
  std::string target;  // a tensor, a shared array or "dynamic shared memory"
  bool shared = false;
  Access kind = Access::load;
  int width = 0;  // bytes a lane
  const void* site = nullptr;
  uint64_t accesses = 0;  // by single threads
  uint64_t requests = 0;
  uint64_t sectors = 0;           // global: distinct 32-byte sectors of each request
  uint64_t wavefronts = 0;        // shared: passes through the 32 banks
  uint64_t ideal_wavefronts = 0;  // shared: passes without a bank conflict
};

// Neighbouring sectors of 32 bytes, first to end - 1; a sector's number is its address over 32.
struct SectorRun {
  uint64_t first = 0, end = 0;
};

struct TensorRecord {
  std::string name;
  uint64_t bytes = 0;                                     // of the tensor
  uint64_t loaded_bytes = 0;                              // distinct
  uint64_t stored_bytes = 0;                              // distinct
  std::vector<SectorRun> loaded_sectors, stored_sectors;  // in order
  std::vector<SectorRun> streamed_sectors;  // of the loaded ones, those of loads that ask the cache not to keep them
};

struct LaunchRecord {
  std::string kernel;
  dim3 grid, block;
  uint64_t dynamic_shared_bytes = 0, static_shared_bytes = 0;
  std::vector<AccessRecord> accesses;
  std::vector<TensorRecord> tensors;
  std::map<std::string, uint64_t> operations;  // barriers, warp operations, what count_operation named
};

// The launches counted since the last call, in the order in which they ended.
std::vector<LaunchRecord> take_launch_records();
void keep_launch_record(LaunchRecord record);

}  // namespace fastconv::emulator
