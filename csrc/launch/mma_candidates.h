// What the families whose configuration is a tile and a number of splits do alike: rank their kernels, find the one
// that a configuration names, describe it.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/mma_cost.h"
#include "launch/registry.h"

namespace fastconv::mma {

// A configuration prints itself as its tile, and its splits where the sum is split: "128x128x32_s4_w4_k3".
inline std::string config_name(const Tile& tile, int splits) {
  return splits > 1 ? tile.name() + "_k" + std::to_string(splits) : tile.name();
}

// Worth a measurement: the whole sum, halves, and what is predicted to be best.
inline std::vector<int> split_options(int best, int most) {
  std::vector<int> options{1};
  if (most >= 2) options.push_back(2);
  if (best > 2) options.push_back(best);
  return options;
}

struct Candidate {
  std::string name;
  double rank;
};

inline std::vector<std::string> names_by_rank(std::vector<Candidate> candidates) {
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.rank < b.rank; });
  std::vector<std::string> names;
  for (Candidate& candidate : candidates) names.push_back(std::move(candidate.name));
  return names;
}

// Configurations by their predicted time. work_of(tile) -> Work. most_splits: that the workspace has room for.
template <class Parameters, class WorkOf>
std::vector<std::string> ranked_configs(const Target& target, const std::vector<Kernel<Parameters>>& kernels,
                                        int most_splits, const WorkOf& work_of) {
  const Machine machine = Machine::of(target);
  std::vector<Candidate> found;
  for (const auto& kernel : kernels) {
    const Work work = work_of(kernel.tile);
    const int best = best_splits(machine, kernel.tile, kernel.shared_bytes, work, most_splits);
    for (int option : split_options(best, most_splits)) {
      found.push_back(
          {config_name(kernel.tile, option), rank(machine, kernel.tile, kernel.shared_bytes, work, option)});
    }
  }
  return names_by_rank(std::move(found));
}

inline std::string why_no_shared_memory(int64_t bytes, const Target& target) {
  const int most = Machine::of(target).block_shared_bytes;
  if (bytes <= most) return "";
  return "needs " + std::to_string(bytes) + " bytes of shared memory, a block has " + std::to_string(most);
}

// The kernel and the splits that a configuration names, or the reason why there are none for this device.
template <class Parameters>
struct Chosen {
  std::string reason;
  const Kernel<Parameters>* kernel = nullptr;
  int splits = 1;
};

// is_narrow: whether `kernels` are those for unaligned pixels.
template <class Parameters>
Chosen<Parameters> choose(const Target& target, const std::vector<Kernel<Parameters>>& kernels, bool is_narrow,
                          const std::string& text) {
  const auto splits_of = [&](const std::string& name) {
    if (text == name) return 1;
    if (text.rfind(name + "_k", 0) != 0) return 0;
    const std::string digits = text.substr(name.size() + 2);
    if (digits.empty() || digits.size() > 4 || digits.find_first_not_of("0123456789") != std::string::npos) return 0;
    const int splits = std::stoi(digits);
    return splits > 1 ? splits : 0;
  };
  for (const Kernel<Parameters>& kernel : kernels) {
    const int splits = splits_of(kernel.tile.name());
    if (splits > 0) return {why_no_shared_memory(kernel.shared_bytes, target), &kernel, splits};
  }
  return {std::string("there is no such configuration") + (is_narrow ? " for unaligned pixels" : "")};
}

// What is known of one launch; own_choices: of the family alone.
template <class Parameters>
Description describe(const ConvProblem& problem, const Kernel<Parameters>& kernel, const Work& work, int splits,
                     std::vector<std::pair<std::string, int64_t>> own_choices) {
  const Machine machine = Machine::of(problem.target);
  const Tile& tile = kernel.tile;
  Description description;
  description.blocks = static_cast<unsigned>(work.blocks * splits);
  description.threads = 32 * tile.warps();
  description.shared_bytes = kernel.shared_bytes;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.predicted_seconds = predict_seconds(machine, tile, kernel.shared_bytes, work, splits);
  auto& choices = description.choices;
  choices = {
      {"tile_rows", tile.rows}, {"tile_columns", tile.columns}, {"tile_depth", tile.depth}, {"stages", tile.stages}};
  choices.insert(choices.end(), own_choices.begin(), own_choices.end());
  const double last_wave = last_wave_efficiency(work.blocks * splits, machine.multiprocessors);
  choices.emplace_back("last_wave_percent", static_cast<int64_t>(100 * last_wave));
  return description;
}

}  // namespace fastconv::mma
