// A prediction of how long a tensor-core kernel takes, from its tile and the device: a roofline for one slice of one
// block, times the blocks that the busiest multiprocessor gets. It ranks tiles and splits; nobody should quote it. The
// figures of the devices are rounded data-sheet values. See docs/implicit_gemm.md.
#pragma once

#include <algorithm>
#include <cstdint>

#include "launch/mma_tiles.h"

namespace fastconv::mma {

constexpr double kBlockClocks = 2500;      // filling the pipeline, and the epilogue
constexpr double kLaunchSeconds = 2.5e-6;  // of a kernel that follows another
constexpr double kSchedulers = 4;          // of a multiprocessor; each issues an instruction a clock

struct Machine {
  int multiprocessors;
  double clock;                   // Hz
  double tensor_flops_per_clock;  // of one multiprocessor, 16-bit operands, through mma.sync
  double cache_bytes_per_clock;   // from the second-level cache, of one multiprocessor
  double memory_bandwidth;        // bytes a second
  double cache_bytes;             // of the second-level cache
  int block_shared_bytes;         // most that a block may have
  int shared_bytes;               // of a multiprocessor

  static Machine of(const Target& target);

  double tensor_flops(Precision precision) const {  // per clock of one multiprocessor
    return tensor_flops_per_clock / (precision == Precision::native ? 1 : precision == Precision::tf32 ? 2 : 6);
  }
  double cache_bandwidth() const { return cache_bytes_per_clock * clock * multiprocessors; }  // bytes a second
};

// What a launch computes, for one candidate tile.
struct Work {
  int64_t blocks;  // of one split
  double slices;   // of a block that does the whole sum
  int element_size;
  Precision precision;
  bool depthwise;                // wgrad: the depth is pixels, so a slice has rows * depth elements all the same
  double memory_bytes;           // that the product moves, what was converted included where it is in memory
  double staging_seconds;        // of the layout conversions before it
  double partial_elements;       // float32 sums of one split
  bool always_adds_parts;        // even one split's sums are stored apart and added up by a second kernel
  double extra_launches;         // layout conversions and weight repacking
  double row_copy, column_copy;  // instructions of a lane for 16 bytes of what rows and what columns are made of
};

// What a lane issues in the main loops for 16 bytes on their way to shared memory: counted on the shortest way round,
// in the machine code of sm_90a, float16. Narrow kernels can copy in pieces; those of 2 bytes go through registers.
struct CopyInstructions {
  double wide, narrow;

  double of(bool is_narrow, int piece_bytes) const {
    return (is_narrow ? narrow : wide) + (piece_bytes == 16 ? 0 : piece_bytes == 8 ? 11 : piece_bytes == 4 ? 28 : 24);
  }
};
constexpr CopyInstructions kGatherCopies{14, 29};  // fprop, dgrad
constexpr CopyInstructions kWgradCopies{28, 37};
constexpr CopyInstructions kPointwiseCopies{7, 22};

inline int row_bytes_of(const Tile& tile, int element_size) {
  return tile.depth * element_size;
}

// Blocks of the last wave are spread over the multiprocessors like all others, so what counts is how many the busiest
// has.
inline double last_wave_efficiency(int64_t blocks, int multiprocessors) {
  const int64_t most = (blocks + multiprocessors - 1) / multiprocessors;
  return blocks == 0 ? 1.0 : static_cast<double>(blocks) / (static_cast<double>(most) * multiprocessors);
}

inline int resident_blocks(const Machine& machine, const Tile& tile, int shared_bytes) {
  const int threads = 32 * tile.warps();
  const int registers = std::min(255, tile.warp_rows * tile.warp_columns / 32 + 100);
  return std::max(
      1, std::min({machine.shared_bytes / (shared_bytes + 1024), 65536 / (threads * registers), 2048 / threads}));
}

// Of the second kernel, which adds the sums of so many splits where they are stored apart: written and read once; those
// that fit the cache do not leave it.
inline double adding_seconds(const Machine& machine, const Work& work, int splits) {
  if (splits == 1 && !work.always_adds_parts) return 0;
  const double bytes = 4.0 * splits * work.partial_elements;
  return kLaunchSeconds + 2 * bytes / (machine.memory_bandwidth * (bytes < machine.cache_bytes / 2 ? 2 : 1));
}

// For a multiprocessor to issue a slice of one block: its products with what loads their operands, and its copies.
inline double issue_clocks(const Tile& tile, const Work& work) {
  constexpr double kProductInstructions = 2.5;
  const double slice_row_bytes = row_bytes_of(tile, work.element_size);
  const double products =
      tile.rows / 16.0 * tile.columns / 8 * slice_row_bytes / 32 * (work.precision == Precision::split_tf32 ? 3 : 1);
  const double copies = (tile.rows * work.row_copy + tile.columns * work.column_copy) * slice_row_bytes / (16 * 32);
  return (kProductInstructions * products + copies) / kSchedulers;
}

inline double predict_seconds(const Machine& machine, const Tile& tile, int shared_bytes, const Work& work,
                              int splits) {
  constexpr double kShortestSeconds = 3e-6;  // of any launch, as in common/cost.cpp
  constexpr double kWarpsToHideLatency = 8;
  const int slice_row_bytes = row_bytes_of(tile, work.element_size);
  const double rate = machine.tensor_flops(work.precision);
  const double operand_bytes = double(tile.rows + tile.columns) * slice_row_bytes;
  const double fragment_bytes = double(tile.warps()) * (tile.warp_rows + tile.warp_columns) * slice_row_bytes;
  const double math = 2.0 * tile.rows * tile.columns * tile.depth / rate;
  const double shared = (fragment_bytes + operand_bytes) / 128;
  const double cache = operand_bytes / machine.cache_bytes_per_clock;

  const int64_t blocks = work.blocks * splits;
  const double most = static_cast<double>((blocks + machine.multiprocessors - 1) / machine.multiprocessors);
  const double together = std::min<double>(resident_blocks(machine, tile, shared_bytes), most);
  const double busy = std::min(1.0, 0.5 + 0.5 * together * tile.warps() / kWarpsToHideLatency);
  const double slice_clocks = std::max({math / busy, shared, cache, issue_clocks(tile, work)});
  const double clocks = most * work.slices / splits * slice_clocks + kBlockClocks * most / together;
  // Multiprocessors that have nothing to do load nothing, either.
  const double bandwidth = machine.memory_bandwidth * last_wave_efficiency(blocks, machine.multiprocessors);
  const double seconds = std::max({kShortestSeconds, clocks / machine.clock, work.memory_bytes / bandwidth});
  return seconds + adding_seconds(machine, work, splits) + work.staging_seconds + kLaunchSeconds * work.extra_launches;
}

// What candidates are ranked by. The model is coarse: of two that it can hardly tell apart, the one that keeps the
// multiprocessors busy comes first.
inline double rank(const Machine& machine, const Tile& tile, int shared_bytes, const Work& work, int splits) {
  constexpr double kBalanced = 0.85, kClearly = 1.1;
  const bool balanced = last_wave_efficiency(work.blocks * splits, machine.multiprocessors) >= kBalanced;
  return predict_seconds(machine, tile, shared_bytes, work, splits) * (balanced ? 1 : kClearly);
}

// The number of splits that ranks first.
inline int best_splits(const Machine& machine, const Tile& tile, int shared_bytes, const Work& work, int most_splits) {
  constexpr int kFewestSlices = 4;
  most_splits = std::min(most_splits, static_cast<int>(std::min(work.slices, 1e6) / kFewestSlices));
  int best = 1;
  double best_rank = rank(machine, tile, shared_bytes, work, 1);
  for (int splits = 2; splits <= most_splits; ++splits) {
    const double found = rank(machine, tile, shared_bytes, work, splits);
    if (found < best_rank) best = splits, best_rank = found;
  }
  return best;
}

inline Machine Machine::of(const Target& target) {
  Machine machine{target.multiprocessors, 1.41e9, 2048, 32, 1.5e12, 40e6, 163 * 1024, 164 * 1024};
  if (target.capability == 86 || target.capability == 89 || target.capability >= 120) {
    machine = {target.multiprocessors, 1.7e9, 1024, 24, 0.8e12, 6e6, 99 * 1024, 100 * 1024};
  } else if (target.capability >= 90) {
    machine = {target.multiprocessors, 1.7e9, 2560, 32, 3.3e12, 50e6, 227 * 1024, 228 * 1024};
  }
  if (target.l2_bytes > 0) machine.cache_bytes = static_cast<double>(target.l2_bytes);
  return machine;
}

}  // namespace fastconv::mma
