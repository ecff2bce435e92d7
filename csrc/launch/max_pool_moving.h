// What the launchers of the faster pooling kernels have in common: planes, channels and large windows.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "launch/launch.h"
#include "launch/max_pool.h"

namespace fastconv {

inline bool is_backward(const PoolProblem& problem) {
  return problem.pass == PoolPass::backward;
}

// Elements of 16 bytes.
inline int64_t vector_of(const PoolProblem& problem) {
  return 16 / size_of(problem.dtype);
}

// Configurations that differ in one number.
class NumberedConfigs {
 public:
  NumberedConfigs(std::initializer_list<std::pair<const char*, int64_t>> numbers) : numbers_(numbers) {}

  std::vector<std::string> names() const;
  int64_t operator[](const std::string& config) const;

 private:
  std::vector<std::pair<const char*, int64_t>> numbers_;
};

// Why 16 bytes of channels cannot be moved at a time; empty where they can. whole: of y and the offsets too.
std::string reason_against_vectors(const PoolProblem& problem, bool whole = true);

// Of a kernel that is bound by the bytes it moves: those that are compulsory, and `moved` where that is more. Fewer
// blocks than multiprocessors reach a share of the memory's speed. instructions: of all threads, where they may bind.
Description describe_moving(const PoolProblem& problem, int64_t blocks, int threads, double moved = 0,
                            double instructions = 0);

// Forward and backward: the larger tensor is x, what is read is x, or y and the offsets. moved_by_vectors: which of x,
// y and the offsets the kernel accesses 16 bytes at a time; where one lies at another address, the general kernel runs.
template <typename Parameters>
Prepared prepare_pool(const PoolProblem& problem, const char* name, const Description& description,
                      void (*kernel)(Parameters), const Parameters& prototype,
                      const std::array<bool, 3>& moved_by_vectors = {true, true, true}) {
  const bool backward = is_backward(problem);
  const Prepared general = (backward ? max_pool_backward : max_pool_forward).prepare(problem, "");
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, y, offsets, unused_indices, unused] = arguments.pointers;
    const std::array<const void*, 3> pointers{x, y, offsets};
    for (int i = 0; i < 3; ++i) {
      if (moved_by_vectors[i] && reinterpret_cast<uintptr_t>(pointers[i]) % 16 != 0) return general.launch(arguments);
    }
    Parameters p = prototype;
    p.input = backward ? y : x;
    p.output = backward ? x : y;
    p.offsets = static_cast<decltype(p.offsets)>(offsets);
    const int64_t size = size_of(problem.dtype), offset_size = problem.offsets_type == OffsetType::uint8 ? 1 : 4;
    const LaunchShape shape{name, description.blocks, description.threads, description.shared_bytes,
                            static_cast<int>(description.threads)};
    launch_kernel(shape, kernel, p,
                  {{"x", x, bytes_of(problem.x, size), backward},
                   {"y", y, bytes_of(problem.y, size), !backward},
                   {"offsets", offsets, bytes_of(problem.offsets, offset_size), !backward}},
                  arguments.stream);
  };
  return {description, launch};
}

}  // namespace fastconv
