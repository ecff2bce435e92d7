// channels_last through NCHW: x, and y or dy, are turned in the workspace, where a kernel of planes takes them, and
// back. Those on tensor cores, for filters so large that reading and writing twice more costs little beside them; and
// those that walk down planes, for channel multipliers, which no kernel of channels_last takes.
#include <algorithm>

#include "common/cost.h"
#include "launch/depthwise_wgrad.h"
#include "launch/direct_conv.h"
#include "launch/mma_conv.h"
#include "launch/tiling.h"

namespace fastconv::depthwise {
namespace {

constexpr double kLaunchSeconds = 2.5e-6;  // of a kernel that follows another

bool is_dense_channels_last(const Operand& operand) {
  const auto& [sizes, strides] = operand;
  const int64_t row = sizes[3] * sizes[1];
  return strides[1] == 1 && strides[3] == sizes[1] && (strides[2] == row || sizes[2] == 1) &&
         (strides[0] == sizes[2] * row || sizes[0] == 1);
}

// The operand in NCHW, planes that begin at whole chunks.
Operand turned(const Operand& operand, int element) {
  Operand result = operand;
  const int64_t width = operand.sizes[3];
  const int64_t plane = mma::round_up(operand.sizes[2] * width, kChunkBytes / element);
  result.strides = {operand.sizes[1] * plane, plane, width, 1};
  return result;
}

int64_t bytes_of_all(const Operand& turned, int element) {
  return turned.sizes[0] * turned.strides[0] * element;
}

// mma's kernel puts in order [outer][inner] what it reads as [inner][outer]: pixels and channels, or the other way
// round.
void turn(const ConvProblem& problem, const Operand& inner_first, const void* source, void* destination,
          const Stream& stream) {
  ConvProblem ungrouped = problem;
  ungrouped.groups = 1;
  mma::launch_conversion(ungrouped, inner_first, source, destination, stream);
}

void turn_to_planes(const ConvProblem& problem, const Operand& operand, const void* source, void* destination,
                    const Stream& stream) {
  const auto& sizes = operand.sizes;
  const int64_t pixels = sizes[2] * sizes[3];
  turn(problem, {{sizes[0], pixels, 1, sizes[1]}, {pixels * sizes[1], sizes[1], 0, 1}}, source, destination, stream);
}

void turn_to_pixels(const ConvProblem& problem, const Operand& planes, const void* source, void* destination,
                    const Stream& stream) {
  const auto& [sizes, strides] = planes;
  turn(problem, {{sizes[0], sizes[1], 1, sizes[2] * sizes[3]}, {strides[0], strides[1], 0, 1}}, source, destination,
       stream);
}

// Images that are turned at a time, and the problem that they make for the kernel of planes.
struct Part {
  ConvProblem problem;  // as it is
  ConvProblem planes;
  int64_t x_bytes, y_bytes;

  Part(const ConvProblem& whole, int64_t images) : problem(mma::with_images(whole, images)), planes(problem) {
    const int element = size_of(problem.dtype);
    planes.x = turned(problem.x, element);
    planes.y = turned(problem.y, element);
    planes.index_bits = 64;
    planes.most_workspace_bytes /= 2;  // x and y have the other half
    x_bytes = mma::round_up(bytes_of_all(planes.x, element), 256);
    y_bytes = mma::round_up(bytes_of_all(planes.y, element), 256);
  }
};

// wgrad sums over all images, so it takes them at once.
int64_t images_of_part(const ConvProblem& problem) {
  const Part whole(problem, problem.x.sizes[0]);
  const int64_t bytes = whole.x_bytes + whole.y_bytes;
  if (problem.pass == ConvPass::wgrad) {
    return bytes <= problem.most_workspace_bytes / 2 ? problem.x.sizes[0] : 0;
  }
  return mma::images_at_once(problem, bytes);
}

// inner: the kernel of planes.
std::string why_not(const ConvProblem& problem, const Way& inner) {
  const int element = size_of(problem.dtype);
  if (!is_dense_channels_last(problem.x) || !is_dense_channels_last(problem.y)) {
    return "x and y must be channels_last without gaps";
  }
  const int64_t channels = roles_of(problem).output->sizes[1];
  if (problem.pass != ConvPass::wgrad && channels % (kChunkBytes / element) != 0) {
    return std::to_string(channels) + " channels, which is not a multiple of " + std::to_string(kChunkBytes / element) +
           ": outputs are turned in whole chunks";
  }
  if (problem.has_residual) return "a residual: this configuration does not turn it";
  const int64_t images = images_of_part(problem);
  if (images == 0) {
    return mma::too_much_workspace(
        problem, problem.pass == ConvPass::wgrad ? "turning x and dy to NCHW" : "turning an image to NCHW and back");
  }
  const Part part(problem, images);
  const std::string reason = inner.why_not(part.planes);
  if (!reason.empty()) return reason;
  for (const Operand* operand : {&part.problem.x, &part.problem.y}) {
    const auto& sizes = operand->sizes;
    // Turned either way, tiles are at least this large.
    const int64_t tiles = ceil_div(sizes[2] * sizes[3], 64) * ceil_div(sizes[1], 64);
    const std::string too_many = reason_for_blocks(sizes[0] * tiles);
    if (!too_many.empty()) return too_many;
  }
  return "";
}

// Where y is not at a whole chunk, which a plan cannot know.
Prepared prepare_general(const ConvProblem& problem) {
  const KernelFamily<ConvProblem>& family = problem.pass == ConvPass::fprop ? direct_fprop : direct_dgrad;
  const std::vector<std::string> configs = family.configs(problem);
  const auto legal = std::find_if(configs.begin(), configs.end(), [&](const std::string& config) {
    return family.can_implement(problem, config).empty();
  });
  return family.prepare(problem, *legal);
}

Prepared prepare(const ConvProblem& problem, const Way& inner_way) {
  const int element = size_of(problem.dtype);
  const int64_t all_images = problem.x.sizes[0], images = images_of_part(problem), rest = all_images % images;
  const bool is_wgrad = problem.pass == ConvPass::wgrad, is_fprop = problem.pass == ConvPass::fprop;
  const Part part(problem, images);
  const Prepared inner = inner_way.prepare(part.planes);
  const Part last_part(problem, rest > 0 ? rest : images);
  const Prepared last = rest > 0 ? inner_way.prepare(last_part.planes) : inner;

  Description description = inner.description;
  description.workspace_bytes = part.x_bytes + part.y_bytes + inner.description.workspace_bytes;
  description.flops = problem.flops();
  description.compulsory_bytes = problem.compulsory_bytes();
  description.choices.push_back({"images_at_once", images});
  Work turning;
  turning.bytes = 2.0 * static_cast<double>((problem.x.count() + problem.y.count()) * element);
  turning.blocks = problem.target.multiprocessors;
  const double parts = static_cast<double>(ceil_div(all_images, images));
  description.predicted_seconds = parts * (inner.description.predicted_seconds + 2 * kLaunchSeconds) +
                                  predict_seconds(turning, problem.dtype, problem.target);

  const Prepared general = is_wgrad ? Prepared{} : prepare_general(problem);
  auto launch = [=](const LaunchArguments& arguments) {
    auto [x, w, y, bias, residual] = arguments.pointers;
    if (!is_wgrad && !mma::is_aligned(is_fprop ? y : x)) return general.launch(arguments);
    auto* workspace = static_cast<unsigned char*>(arguments.workspace);
    LaunchArguments inside = arguments;
    inside.pointers = {workspace, w, workspace + part.x_bytes, bias, nullptr};
    inside.workspace = workspace + part.x_bytes + part.y_bytes;
    for (int64_t first = 0; first < all_images; first += images) {
      const bool is_whole = first + images <= all_images;
      const Part& now = is_whole ? part : last_part;
      auto* own_x = static_cast<unsigned char*>(x) + first * problem.x.strides[0] * element;
      auto* own_y = static_cast<unsigned char*>(y) + first * problem.y.strides[0] * element;
      if (is_fprop || is_wgrad) {
        turn_to_planes(problem, now.problem.x, own_x, inside.pointers[0], arguments.stream);
      }
      if (!is_fprop) turn_to_planes(problem, now.problem.y, own_y, inside.pointers[2], arguments.stream);
      (is_whole ? inner : last).launch(inside);
      if (is_fprop) turn_to_pixels(problem, now.planes.y, inside.pointers[2], own_y, arguments.stream);
      if (!is_fprop && !is_wgrad) turn_to_pixels(problem, now.planes.x, inside.pointers[0], own_x, arguments.stream);
    }
  };
  return {description, launch};
}

const Way& band_of_pass(const ConvProblem& problem) {
  return problem.pass == ConvPass::wgrad ? band_wgrad_way : band_way;
}

const Way& planes_of_pass(const ConvProblem& problem) {
  return problem.pass == ConvPass::wgrad ? planes_wgrad_way : planes_way;
}

std::string why_not_band(const ConvProblem& problem) {
  return why_not(problem, band_of_pass(problem));
}

Prepared prepare_band(const ConvProblem& problem) {
  return prepare(problem, band_of_pass(problem));
}

std::string why_not_planes(const ConvProblem& problem) {
  if (problem.x.sizes[1] == problem.y.sizes[1]) return "one filter a channel: slabs take it as it lies";
  return why_not(problem, planes_of_pass(problem));
}

Prepared prepare_planes(const ConvProblem& problem) {
  return prepare(problem, planes_of_pass(problem));
}

}  // namespace

const Way turned_ways[2] = {{"band_turned", why_not_band, prepare_band},
                            {"planes_turned", why_not_planes, prepare_planes}};

}  // namespace fastconv::depthwise
