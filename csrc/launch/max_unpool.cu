#include "launch/max_unpool.h"

#include <algorithm>
#include <array>

#include "common/cost.h"
#include "launch/tiling.h"

namespace fastconv {
namespace {

// Into how many shares a plane's positions are split: "s4".
const std::vector<std::pair<const char*, int64_t>> kShares{{"s1", 1}, {"s4", 4}, {"s16", 16}, {"s64", 64}};

int64_t shares_of(const std::string& config) {
  for (const auto& [name, shares] : kShares) {
    if (config == name) return shares;
  }
  return 1;
}

int64_t sources_of(const UnpoolProblem& problem) {
  return problem.x.sizes[2] * problem.x.sizes[3];
}

int64_t positions_of(const UnpoolProblem& problem) {
  return problem.y.sizes[2] * problem.y.sizes[3];
}

// Warps that fill shares: of planes, or of 32 channels.
int64_t tasks_of(const UnpoolProblem& problem, int64_t shares) {
  const int64_t channels = problem.y.sizes[1];
  return problem.y.sizes[0] * (channels_are_innermost(problem.y) ? ceil_div(channels, 32) : channels) * shares;
}

std::string reason_for_sizes(const UnpoolProblem& problem) {
  if (sources_of(problem) >= int64_t{1} << 30 || positions_of(problem) >= int64_t{1} << 30) {
    return "2^30 pixels or more in a plane";
  }
  return "";
}

UnpoolParameters parameters_of(const UnpoolProblem& problem, const Operand& values, const Operand& output) {
  UnpoolParameters p{};
  p.value_strides = Strides<int64_t>::of(values);
  p.index_strides = Strides<int64_t>::of(problem.indices);
  p.output_strides = Strides<int64_t>::of(output);
  p.sources = static_cast<int>(sources_of(problem));
  p.positions = static_cast<int>(positions_of(problem));
  p.source_columns = FastDivider<uint32_t>(static_cast<uint32_t>(problem.x.sizes[3]));
  p.position_columns = FastDivider<uint32_t>(static_cast<uint32_t>(problem.y.sizes[3]));
  p.channels = static_cast<int>(problem.y.sizes[1]);
  return p;
}

Description describe(const UnpoolProblem& problem, int64_t blocks, double bytes) {
  Description description;
  description.blocks = static_cast<unsigned>(blocks);
  description.threads = kUnpoolThreads;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  Work work;
  work.bytes =
      bytes / std::min(1.0, static_cast<double>(std::max<int64_t>(blocks, 1)) / problem.target.multiprocessors);
  work.blocks = static_cast<double>(blocks);
  description.predicted_seconds = predict_seconds(work, DataType::float32, problem.target);
  return description;
}

std::vector<std::string> configs(const UnpoolProblem&) {
  std::vector<std::string> names;
  for (const auto& shares : kShares) names.push_back(shares.first);
  return names;
}

std::string can_implement(const UnpoolProblem& problem, const std::string& config) {
  const std::string reason = reason_for_sizes(problem);
  if (!reason.empty()) return reason;
  return reason_for_blocks(ceil_div(tasks_of(problem, shares_of(config)), kUnpoolWarps));
}

// Whether rows follow each other without a gap.
bool has_flat_planes(const Operand& operand) {
  return (operand.sizes[3] == 1 || operand.strides[3] == 1) &&
         (operand.sizes[2] == 1 || operand.strides[2] == operand.sizes[3]);
}

// Whether channels are neighbours, and begin at a multiple of `vector` elements at every pixel.
bool has_vectors_of_channels(const Operand& operand, int64_t vector) {
  if (operand.sizes[1] != 1 && operand.strides[1] != 1) return false;
  for (int i : {0, 2, 3}) {
    if (operand.sizes[i] != 1 && operand.strides[i] % vector != 0) return false;
  }
  return true;
}

// Whether the zeros of a share are whole 16-byte accesses: neighbouring elements, or neighbouring channels.
bool has_wide_zeros(const UnpoolProblem& problem, bool in_channels) {
  if (!in_channels) return has_flat_planes(problem.y);
  const int64_t vector = 16 / size_of(problem.dtype);
  return problem.y.sizes[1] % vector == 0 && has_vectors_of_channels(problem.y, vector);
}

// Whether 16-byte accesses to x and to the indices begin at the same elements of all planes or pixels, if both operands
// begin at a multiple of 16 bytes.
bool has_vectors(const UnpoolProblem& problem, bool in_channels) {
  const Operand &x = problem.x, &indices = problem.indices;
  const int64_t vector = 16 / size_of(problem.dtype);
  if (in_channels) return has_vectors_of_channels(x, vector) && has_vectors_of_channels(indices, 2);
  if (!has_flat_planes(x) || !has_flat_planes(indices)) return false;
  for (int i : {0, 1}) {
    if (x.sizes[i] != 1 && (x.strides[i] - indices.strides[i]) % 2 != 0) return false;
  }
  return true;
}

bool is_vector(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

Prepared prepare(const UnpoolProblem& problem, const std::string& config) {
  const bool in_channels = channels_are_innermost(problem.y);
  const int64_t shares = shares_of(config), tasks = tasks_of(problem, shares), size = size_of(problem.dtype);
  UnpoolParameters prototype = parameters_of(problem, problem.x, problem.y);
  prototype.adds = problem.pass == UnpoolPass::add;
  prototype.is_one_piece = has_wide_zeros(problem, in_channels);
  prototype.has_vectors = has_vectors(problem, in_channels);
  prototype.tasks = tasks;
  prototype.shares = static_cast<int>(shares);
  // Whole accesses in every share but the last.
  prototype.per_share = static_cast<int>(ceil_div(ceil_div(positions_of(problem), shares), 16) * 16);
  prototype.share_divider = DividerOf<int64_t>(static_cast<uint64_t>(shares));
  prototype.channel_divider =
      DividerOf<int64_t>(static_cast<uint64_t>(in_channels ? ceil_div(problem.y.sizes[1], 32) : problem.y.sizes[1]));

  // Zeros, then sectors of them that are fetched and written again, and the indices once for each share.
  const double bytes = static_cast<double>(problem.y.count() * size) +
                       static_cast<double>(problem.x.count()) * static_cast<double>(8 * shares + size + 2 * 32);
  Description description = describe(problem, ceil_div(tasks, kUnpoolWarps), bytes);
  description.shared_bytes = int64_t{kUnpoolWarps} * kUnpoolStep * (4 + size);  // positions and values
  description.choices = {{"shares", shares}};

  const UnpoolKernel kernel = max_unpool_kernel_of(problem.dtype, in_channels);
  if (description.blocks == 0) return {description, [](const LaunchArguments&) {}};
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, indices, y, unused_slot, unused] = arguments.pointers;
    UnpoolParameters p = prototype;
    p.values = x;
    p.indices = static_cast<const int64_t*>(indices);
    p.output = y;
    if (in_channels && !is_vector(y)) p.is_one_piece = false;
    if (!is_vector(x) || !is_vector(indices)) p.has_vectors = false;
    launch_kernel({"max_unpool", description.blocks, kUnpoolThreads, 0, kUnpoolThreads}, kernel, p,
                  {{"x", x, bytes_of(problem.x, size)},
                   {"indices", indices, bytes_of(problem.indices, 8)},
                   {"y", y, bytes_of(problem.y, size), true}},
                  arguments.stream);
  };
  return {description, launch};
}

std::vector<std::string> gather_configs(const UnpoolProblem&) {
  return {""};
}

std::string can_gather(const UnpoolProblem& problem, const std::string&) {
  const std::string reason = reason_for_sizes(problem);
  return reason.empty() ? reason_for_blocks(ceil_div(problem.x.count(), kUnpoolThreads)) : reason;
}

// Whether elements lie in the order in which gather counts them, without gaps.
bool is_in_order(const Operand& operand, bool channels_are_fastest) {
  const std::array<int, 4> order =
      channels_are_fastest ? std::array<int, 4>{1, 3, 2, 0} : std::array<int, 4>{3, 2, 1, 0};
  int64_t expected = 1;
  for (int i : order) {
    if (operand.sizes[i] != 1 && operand.strides[i] != expected) return false;
    expected *= operand.sizes[i];
  }
  return true;
}

Prepared prepare_gather(const UnpoolProblem& problem, const std::string&) {
  const int64_t size = size_of(problem.dtype), count = problem.x.count();
  UnpoolParameters prototype = parameters_of(problem, problem.y, problem.x);
  prototype.tasks = count;
  prototype.channels_are_fastest = channels_are_innermost(problem.x);
  prototype.channel_divider = DividerOf<int64_t>(static_cast<uint64_t>(problem.x.sizes[1]));
  prototype.plane_divider = DividerOf<int64_t>(static_cast<uint64_t>(sources_of(problem)));
  const bool has_vectors = is_in_order(problem.x, prototype.channels_are_fastest) &&
                           is_in_order(problem.indices, prototype.channels_are_fastest);
  const auto blocks_of = [=](bool in_vectors) {
    return ceil_div(count, in_vectors ? gather_elements_of_block(static_cast<int>(size)) : kUnpoolThreads);
  };
  const double bytes = static_cast<double>(count) * static_cast<double>(8 + size + 32);
  Description description = describe(problem, blocks_of(has_vectors), bytes);
  if (has_vectors) description.shared_bytes = gather_elements_of_block(static_cast<int>(size)) * (4 + size);
  if (description.blocks == 0) return {description, [](const LaunchArguments&) {}};
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, indices, y, unused_slot, unused] = arguments.pointers;
    UnpoolParameters p = prototype;
    p.values = y;
    p.indices = static_cast<const int64_t*>(indices);
    p.output = x;
    p.has_vectors = has_vectors && is_vector(x) && is_vector(indices);
    const unsigned blocks = static_cast<unsigned>(blocks_of(p.has_vectors));
    launch_kernel({"max_unpool_gather", blocks, kUnpoolThreads, 0, kUnpoolThreads},
                  max_unpool_gather_kernel_of(problem.dtype, p.has_vectors), p,
                  {{"x", x, bytes_of(problem.x, size), true},
                   {"indices", indices, bytes_of(problem.indices, 8)},
                   {"y", y, bytes_of(problem.y, size)}},
                  arguments.stream);
  };
  return {description, launch};
}

}  // namespace

const KernelFamily<UnpoolProblem> max_unpool{
    "max_unpool", "values at flat positions among zeros; of equal positions the last, or the sum, in order", configs,
    can_implement, prepare};

const KernelFamily<UnpoolProblem> max_unpool_gather{"max_unpool_gather", "values picked at flat positions",
                                                    gather_configs, can_gather, prepare_gather};

}  // namespace fastconv
