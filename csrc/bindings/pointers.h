// The pointers that a launch takes for each kind of problem, and what is checked of them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/problem.h"
#include "common/unpool_problem.h"

namespace fastconv {

// One entry of a launch's tuple of pointers.
struct Slot {
  const char* name;
  bool is_used;      // else the pointer is 0
  int64_t elements;  // an empty tensor may have any pointer
  int alignment;
};

inline std::vector<Slot> slots_of(const ConvProblem& problem) {
  int size = size_of(problem.dtype);
  int64_t bias = problem.pass == ConvPass::dgrad ? problem.x.sizes[1] : problem.y.sizes[1];
  return {{"x", true, problem.x.count(), size},
          {"w", true, problem.w.count(), size},
          {"y", true, problem.y.count(), size},
          {"bias", problem.has_bias, bias, size},
          {"residual", problem.has_residual, problem.residual.count(), size}};
}

inline std::vector<Slot> slots_of(const PoolProblem& problem) {
  int size = size_of(problem.dtype), offset_size = problem.offsets_type == OffsetType::uint8 ? 1 : 4;
  bool is_indices = problem.pass == PoolPass::indices;
  return {{"x", !is_indices, problem.x.count(), size},
          {"y", !is_indices, problem.y.count(), size},
          {"offsets", true, problem.offsets.count(), offset_size},
          {"indices", is_indices, problem.y.count(), 8}};
}

// Of a convolution whose output is reduced to `y`; `places` are offsets or indices.
inline std::vector<Slot> slots_of(const ConvProblem& conv, int64_t outputs, const Slot& places) {
  int size = size_of(conv.dtype);
  return {{"x", true, conv.x.count(), size},
          {"w", true, conv.w.count(), size},
          {"y", true, outputs, size},
          {"bias", conv.has_bias, conv.y.sizes[1], size},
          places};
}

inline std::vector<Slot> slots_of(const ConvMaxPoolProblem& problem) {
  int64_t outputs = problem.pool.y.count();
  int offset_size = problem.pool.offsets_type == OffsetType::uint8 ? 1 : 4;
  return slots_of(problem.conv, outputs, {"offsets", true, outputs, offset_size});
}

inline std::vector<Slot> slots_of(const ConvGlobalMaxProblem& problem) {
  return slots_of(problem.conv, problem.outputs(), {"indices", true, problem.outputs(), 8});
}

inline std::vector<Slot> slots_of(const UnpoolProblem& problem) {
  int size = size_of(problem.dtype);
  return {{"x", true, problem.x.count(), size},
          {"indices", true, problem.indices.count(), 8},
          {"y", true, problem.y.count(), size}};
}

inline std::vector<Slot> slots_of(const ChannelSumProblem& problem) {
  int size = size_of(problem.dtype);
  return {{"x", true, problem.x.count(), size}, {"sums", true, problem.x.sizes[1], size}};
}

inline std::vector<Slot> slots_of(const ActivationBackwardProblem& problem) {
  const int size = size_of(problem.dtype);
  return {{"dy", true, problem.dy.count(), size},
          {"saved", true, problem.saved.count(), size},
          {"dz", true, problem.dz.count(), size}};
}

inline void check_pointer(const Slot& slot, uint64_t pointer) {
  std::string name = std::string("pointer of ") + slot.name;
  if (!slot.is_used && pointer != 0) throw std::invalid_argument(name + " is given, but the problem has none: pass 0");
  if (!slot.is_used || slot.elements == 0) return;
  if (pointer == 0) throw std::invalid_argument(name + " is 0, but the problem needs it");
  if (pointer % slot.alignment != 0) {
    throw std::invalid_argument(name + " is " + std::to_string(pointer) + ", but must be a multiple of " +
                                std::to_string(slot.alignment));
  }
}

}  // namespace fastconv
