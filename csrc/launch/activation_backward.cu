#include "launch/activation_backward.h"

#include <algorithm>
#include <vector>

#include "common/cost.h"
#include "kernels/activation_backward.cuh"
#include "launch/tiling.h"

namespace fastconv {
namespace {

// The tensors' dimensions in the order of dz's memory, those that continue each other in all of them made one.
struct Walk {
  std::array<int64_t, 4> sizes{1, 1, 1, 1};
  std::array<int64_t, 4> dy{}, saved{}, dz{};

  explicit Walk(const ActivationBackwardProblem& problem) {
    std::vector<int> order;
    for (int i = 0; i < 4; ++i) {
      if (problem.dz.sizes[i] != 1) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return problem.dz.strides[a] < problem.dz.strides[b]; });
    int at = 4;  // of the last dimension that was placed
    for (int i : order) {
      const int64_t size = problem.dz.sizes[i];
      const auto continues = [&](const std::array<int64_t, 4>& strides, const Operand& operand) {
        return operand.strides[i] == strides[at] * sizes[at];
      };
      if (at < 4 && continues(dy, problem.dy) && continues(saved, problem.saved) && continues(dz, problem.dz)) {
        sizes[at] *= size;
        continue;
      }
      --at;
      sizes[at] = size;
      dy[at] = problem.dy.strides[i];
      saved[at] = problem.saved.strides[i];
      dz[at] = problem.dz.strides[i];
    }
    if (at != 4) {  // the innermost belongs to the end of the arrays, where it is
      return;
    }
    dy[3] = saved[3] = dz[3] = 1;  // a single element
  }

  // Elements that can be moved at once, as far as strides say.
  int64_t piece(int64_t element_size) const {
    const int64_t most = 16 / element_size;
    const bool is_one_row = sizes[0] == 1 && sizes[1] == 1 && sizes[2] == 1;
    if (dz[3] != 1 || (!is_one_row && sizes[3] % most != 0)) return 1;
    for (const auto& strides : {dy, saved, dz}) {
      if (strides[3] != 1) continue;
      for (int i = 0; i < 3; ++i) {
        if (sizes[i] > 1 && strides[i] % most != 0) return 1;
      }
    }
    return most;
  }
};

template <typename Index>
ActivationBackwardParameters<Index> parameters_for(const ActivationBackwardProblem& problem, const Walk& walk,
                                                   int64_t piece) {
  ActivationBackwardParameters<Index> p{};
  for (int i = 0; i < 4; ++i) {
    p.dy_strides[i] = static_cast<Index>(walk.dy[i]);
    p.saved_strides[i] = static_cast<Index>(walk.saved[i]);
    p.dz_strides[i] = static_cast<Index>(walk.dz[i]);
  }
  const int64_t pieces = ceil_div(walk.sizes[3], piece);
  p.length = static_cast<Index>(walk.sizes[3]);
  p.items = static_cast<Unsigned<Index>>(pieces * walk.sizes[2] * walk.sizes[1] * walk.sizes[0]);
  p.pieces = DividerOf<Index>(pieces);
  p.sizes[0] = DividerOf<Index>(walk.sizes[2]);
  p.sizes[1] = DividerOf<Index>(walk.sizes[1]);
  p.activation = problem.activation;
  return p;
}

int64_t blocks_of(const Walk& walk, int64_t piece) {
  const int64_t items = ceil_div(walk.sizes[3], piece) * walk.sizes[2] * walk.sizes[1] * walk.sizes[0];
  return ceil_div(items, kActivationBackwardThreads);
}

Description describe(const ActivationBackwardProblem& problem, const Walk& walk, int64_t piece) {
  Description description;
  description.blocks = static_cast<unsigned>(blocks_of(walk, piece));
  description.threads = kActivationBackwardThreads;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.choices = {{"elements_at_once", piece}};
  Work work;
  work.bytes = static_cast<double>(description.compulsory_bytes);
  work.blocks = description.blocks;
  description.predicted_seconds = predict_seconds(work, problem.dtype, problem.target);
  return description;
}

template <typename T, typename Index, int piece>
void launch(const ActivationBackwardProblem& problem, ActivationBackwardParameters<Index> p, int64_t blocks,
            const LaunchArguments& arguments) {
  p.dy = arguments.pointers[0];
  p.saved = arguments.pointers[1];
  p.dz = arguments.pointers[2];
  launch_kernel(
      {"activation_backward", static_cast<unsigned>(blocks), kActivationBackwardThreads, 0, kActivationBackwardThreads},
      activation_backward_kernel<T, Index, piece>, p,
      {{"dy", p.dy, bytes_of(problem.dy, sizeof(T))},
       {"saved", p.saved, bytes_of(problem.saved, sizeof(T))},
       {"dz", p.dz, bytes_of(problem.dz, sizeof(T)), true}},
      arguments.stream);
}

bool are_aligned(const LaunchArguments& arguments) {
  return std::all_of(arguments.pointers.begin(), arguments.pointers.begin() + 3,
                     [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; });
}

template <typename T, typename Index>
Prepared prepare_as(const ActivationBackwardProblem& problem) {
  constexpr int kMost = 16 / sizeof(T);
  const Walk walk(problem);
  const int64_t piece = walk.piece(sizeof(T));
  const Description description = describe(problem, walk, piece);
  if (description.blocks == 0) return {description, [](const LaunchArguments&) {}};
  const auto whole = parameters_for<Index>(problem, walk, kMost), single = parameters_for<Index>(problem, walk, 1);
  const int64_t whole_blocks = blocks_of(walk, kMost), single_blocks = blocks_of(walk, 1);
  return {description, [=](const LaunchArguments& arguments) {
            if (piece == kMost && are_aligned(arguments)) {
              launch<T, Index, kMost>(problem, whole, whole_blocks, arguments);
            } else {
              launch<T, Index, 1>(problem, single, single_blocks, arguments);
            }
          }};
}

std::vector<std::string> configs(const ActivationBackwardProblem&) {
  return {""};
}

std::string can_implement(const ActivationBackwardProblem& problem, const std::string&) {
  return reason_for_blocks(blocks_of(Walk(problem), 1));
}

Prepared prepare(const ActivationBackwardProblem& problem, const std::string&) {
  return with_type(problem.dtype, [&](auto type) {
    return with_index(problem.index_bits, [&](auto index) {
      return prepare_as<typename decltype(type)::type, typename decltype(index)::type>(problem);
    });
  });
}

}  // namespace

const KernelFamily<ActivationBackwardProblem> activation_backward_family{
    "activation_backward", "dy through an activation, any layout, one pass of 16-byte accesses", configs, can_implement,
    prepare};

}  // namespace fastconv
