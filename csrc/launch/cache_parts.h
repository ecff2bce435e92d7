// In how many parts a batch passes through the workspace: so that what one launch writes there the next reads from the
// second-level cache, where that is predicted to be faster. See docs/implicit_gemm.md.
#pragma once

#include "launch/mma_cost.h"

namespace fastconv::mma {

// A batch whose images are alike. Bytes and products are those of all images.
struct StagedBatch {
  int64_t images = 0;
  double staged_bytes = 0;    // written to the workspace, and read from there by the next launch
  double source_bytes = 0;    // of which they are made: read once, and not kept
  double other_bytes = 0;     // that the product reads and writes beside them
  double weight_bytes = 0;    // that every part reads
  double sums_bytes = 0;      // that every part adds to
  double products = 0;        // multiply-adds
  double block_products = 0;  // of a block of 128 x 128 outputs
  Precision precision = Precision::native;
  int launches = 1;  // of a part
};

// Of the cache, what plans count on: addresses are hashed to sets of lines, and some fill before others.
constexpr double kShareOfCache = 0.75;

// So many images touch no more between two uses of a staged byte than the cache keeps.
inline int64_t images_in_cache(const Machine& machine, const StagedBatch& batch) {
  const double of_image = (batch.staged_bytes + batch.other_bytes) / static_cast<double>(batch.images);
  const double room = kShareOfCache * machine.cache_bytes - batch.weight_bytes - batch.sums_bytes;
  return static_cast<int64_t>(std::max(0.0, room / of_image));
}

// Of the launches that fill the workspace, all images together, without the time that a launch takes anyway.
inline double staging_seconds(const Machine& machine, const StagedBatch& batch, bool in_cache) {
  const double memory_bytes = batch.source_bytes + (in_cache ? 0 : batch.staged_bytes);
  return std::max(memory_bytes / machine.memory_bandwidth,
                  (batch.source_bytes + batch.staged_bytes) / machine.cache_bandwidth());
}

// Of the whole batch, `images` at a time.
inline double predict_parts(const Machine& machine, const StagedBatch& batch, int64_t images) {
  const bool in_cache = images <= images_in_cache(machine, batch);
  const double flops = machine.tensor_flops(batch.precision);  // per clock
  const double product_bytes = batch.other_bytes + (in_cache ? 0 : batch.staged_bytes);
  const double product = std::max(2 * batch.products / (flops * machine.multiprocessors * machine.clock),
                                  product_bytes / machine.memory_bandwidth);
  // In its last wave a part leaves half of the multiprocessors idle, for as long as a block takes.
  const double waiting = (kBlockClocks + batch.block_products / flops) / machine.clock;
  const double part = kLaunchSeconds * batch.launches + waiting + 2 * batch.sums_bytes / machine.cache_bandwidth();
  const auto parts = static_cast<double>((batch.images + images - 1) / images);
  return staging_seconds(machine, batch, in_cache) + product + parts * part;
}

// Images at a time: `most` at once, which the workspace has room for, or as many as stay in the cache, in parts as
// equal as can be.
inline int64_t images_of_a_part(const Machine& machine, const StagedBatch& batch, int64_t most) {
  if (batch.staged_bytes == 0) return most;
  const int64_t fitting = images_in_cache(machine, batch);
  if (fitting == 0 || fitting >= most) return most;
  const int64_t parts = (batch.images + fitting - 1) / fitting, images = (batch.images + parts - 1) / parts;
  return predict_parts(machine, batch, images) <= predict_parts(machine, batch, most) ? images : most;
}

}  // namespace fastconv::mma
