// Candidates of a problem, and the plan that one of them becomes. All of it without Python.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "bindings/ops.h"
#include "bindings/pointers.h"
#include "launch/registry.h"

#if FASTCONV_EMULATOR
#include "emulator/launch_recorder.h"
#endif

namespace fastconv {

struct Candidate {
  std::string kernel, config, reason;
  Description description;

  std::string text() const {
    return "Candidate(" + kernel + (config.empty() ? "" : ", " + config) + (reason.empty() ? "" : ": " + reason) + ")";
  }
};

inline std::vector<Candidate> candidates_of(const AnyProblem& any) {
  std::vector<Candidate> found;
  std::visit(
      [&](const auto& problem) {
        for (const auto& family : families(problem)) {
          for (const std::string& config : family.configs(problem)) {
            Candidate candidate{family.name, config, why_not(family, problem, config), {}};
            if (candidate.reason.empty()) candidate.description = family.prepare(problem, config).description;
            found.push_back(candidate);
          }
        }
      },
      any);
  return found;
}

class Plan {
 public:
  Plan(const AnyProblem& any, const std::string& kernel, const std::string& config) : kernel_(kernel), config_(config) {
    std::visit([&](const auto& problem) { prepare(problem); }, any);
  }

  const Description& description() const { return prepared_.description; }
  std::string text() const { return "Plan(" + op_ + ", " + kernel_ + (config_.empty() ? "" : ", " + config_) + ")"; }

  const Packing& packing() const { return prepared_.packing; }

  void pack(uint64_t w, uint64_t packed, int device, uint64_t stream) const {
    if (packing().bytes == 0) throw std::invalid_argument(text() + " reads w as it is: it has nothing to pack");
    for (const Slot& slot : slots_) {
      if (std::string(slot.name) == "w") check_pointer(slot, w);
    }
    check_pointer({"packed", true, packing().bytes, 16}, packed);
    packing().pack(reinterpret_cast<const void*>(w), reinterpret_cast<void*>(packed), {device, stream});
  }

  void launch(const std::vector<uint64_t>& pointers, uint64_t workspace, int device, uint64_t stream,
              uint64_t packed) const {
    if (pointers.size() != slots_.size()) {
      throw std::invalid_argument(op_ + " takes " + std::to_string(slots_.size()) + " pointers, but was given " +
                                  std::to_string(pointers.size()));
    }
    LaunchArguments arguments;
    for (size_t i = 0; i < slots_.size(); ++i) {
      check_pointer(slots_[i], pointers[i]);
      arguments.pointers[i] = reinterpret_cast<void*>(pointers[i]);
    }
    if (packed != 0) {
      if (packing().bytes == 0) throw std::invalid_argument("packed is given, but " + text() + " reads w as it is");
      check_pointer({"packed", true, packing().bytes, 16}, packed);
    }
    const int64_t skipped = packed != 0 ? packing().skipped_workspace : 0;
    const int64_t workspace_bytes = description().workspace_bytes - skipped;
    if (workspace_bytes > 0) check_pointer({"the workspace", true, workspace_bytes, 16}, workspace);
    arguments.packed_weights = reinterpret_cast<const void*>(packed);
    arguments.workspace = reinterpret_cast<void*>(workspace - skipped);
    arguments.stream = {device, stream};
    prepared_.launch(arguments);
  }

#if FASTCONV_EMULATOR
  // What `launch` would launch, with pointers that are aligned as a tensor of its own is. The host looks at no more of
  // them, and no kernel runs.
  std::vector<emulator::RecordedLaunch> dry_run() const {
    constexpr uint64_t kApart = uint64_t{1} << 40;
    LaunchArguments arguments;
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].is_used) arguments.pointers[i] = reinterpret_cast<void*>((i + 1) * kApart);
    }
    arguments.workspace = reinterpret_cast<void*>((slots_.size() + 1) * kApart);
    emulator::LaunchRecorder recorder;
    if (description().blocks > 0) prepared_.launch(arguments);
    return recorder.launches();
  }
#endif

 private:
  template <typename Problem>
  void prepare(const Problem& problem) {
    problem.validate();
    op_ = op_of(problem);
    slots_ = slots_of(problem);
    std::string known;
    for (const auto& family : families(problem)) {
      if (family.name != kernel_) {
        known += (known.empty() ? "" : ", ") + std::string(family.name);
        continue;
      }
      std::vector<std::string> configs = family.configs(problem);
      if (std::find(configs.begin(), configs.end(), config_) == configs.end()) {
        std::string names;
        for (const std::string& name : configs) names += (names.empty() ? "" : ", ") + ("'" + name + "'");
        throw std::invalid_argument("config is '" + config_ + "', but " + kernel_ + " has " + names);
      }
      std::string reason = why_not(family, problem, config_);
      if (!reason.empty())
        throw std::invalid_argument(kernel_ + " '" + config_ + "' cannot run this problem: " + reason);
      prepared_ = family.prepare(problem, config_);
      return;
    }
    throw std::invalid_argument("kernel is '" + kernel_ + "', but " + op_ + " has " + known);
  }

  std::string op_, kernel_, config_;
  std::vector<Slot> slots_;
  Prepared prepared_;
};

}  // namespace fastconv
