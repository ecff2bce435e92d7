#include "launch/max_pool_moving.h"

#include <algorithm>

#include "common/cost.h"

namespace fastconv {

std::vector<std::string> NumberedConfigs::names() const {
  std::vector<std::string> names;
  for (const auto& [name, number] : numbers_) names.push_back(name);
  return names;
}

int64_t NumberedConfigs::operator[](const std::string& config) const {
  const auto found =
      std::find_if(numbers_.begin(), numbers_.end(), [&](const auto& one) { return one.first == config; });
  return found == numbers_.end() ? 1 : found->second;
}

std::string reason_against_vectors(const PoolProblem& problem, bool whole) {
  const int64_t vector = vector_of(problem);
  if (problem.x.sizes[1] % vector != 0) {
    return std::to_string(problem.x.sizes[1]) + " channels are not a multiple of " + std::to_string(vector) +
           ", 16 bytes of them";
  }
  for (const auto& [name, operand] :
       {std::pair<const char*, const Operand&>{"x", problem.x}, {"y", problem.y}, {"offsets", problem.offsets}}) {
    if (!whole && &operand != &problem.x) continue;
    if (operand.sizes[1] > 1 && operand.strides[1] != 1) {
      return std::string(name) + " has channels " + std::to_string(operand.strides[1]) +
             " elements apart; they are wanted side by side (channels_last)";
    }
    for (int i : {0, 2, 3}) {
      if (operand.sizes[i] > 1 && operand.strides[i] % vector != 0) {
        return std::string(name) + " has a stride of " + std::to_string(operand.strides[i]) + ", not a multiple of " +
               std::to_string(vector) + " elements: accesses would not be aligned";
      }
    }
  }
  return "";
}

Description describe_moving(const PoolProblem& problem, int64_t blocks, int threads, double moved,
                            double instructions) {
  Description description;
  description.blocks = static_cast<unsigned>(blocks);
  description.threads = threads;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  Work work;
  work.blocks = static_cast<double>(blocks);
  work.bytes = std::max(moved, static_cast<double>(description.compulsory_bytes)) /
               std::min(1.0, work.blocks / problem.target.multiprocessors);
  work.multiply_adds = instructions;
  // Whatever the type of the elements, comparing and addressing run at the rate of float32.
  description.predicted_seconds = predict_seconds(work, DataType::float32, problem.target);
  return description;
}

}  // namespace fastconv
