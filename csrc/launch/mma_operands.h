// How the host prepares operands: which copies an operand allows, its way to channels-last, and the shares of the
// workspace.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <numeric>
#include <string>

#include "kernels/mma_conv/repack.cuh"
#include "launch/launch.h"
#include "launch/mma_tiles.h"

namespace fastconv::mma {

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
inline int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

inline PixelStrides pixel_strides(const Operand& operand) {
  return {operand.strides[0], operand.strides[2], operand.strides[3]};
}

// What stands around x in fprop and wgrad.
inline Border border_of(const ConvProblem& problem) {
  Border border{};
  border.is_mapped = !problem.is_zero_padded();
  if (problem.padding_mode == PaddingMode::constant) border.fill = static_cast<float>(problem.padding_value);
  border.rows = PaddedAxis<int>::of(problem, 0);
  border.columns = PaddedAxis<int>::of(problem, 1);
  return border;
}

// Reads of the operand's pixels are of this many bytes: 16; 8, 4 or 2 where the channels or their alignment allow no
// more; or 0 where channels are not neighbours, and the operand is first turned to channels-last.
inline int piece_bytes_of(const Operand& operand, int groups, int element_size) {
  const int64_t channels = operand.sizes[1] / groups;
  if (operand.strides[1] != 1 && operand.sizes[1] != 1) return 0;
  int64_t step = 0;
  for (int dimension : {0, 2, 3}) {
    if (operand.sizes[dimension] > 1) step = std::gcd(step, operand.strides[dimension] * element_size);
  }
  if (channels * element_size % 16 != 0) step = std::gcd(step, int64_t{8});
  const int64_t piece = std::gcd(step, int64_t{16});
  return static_cast<int>(piece == 0 ? 16 : piece);
}

inline int piece_bytes_of(const void* pointer, int piece_bytes) {
  return static_cast<int>(std::gcd(reinterpret_cast<uintptr_t>(pointer), static_cast<uintptr_t>(piece_bytes)));
}

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// The same tensor as [N, H, W, G, channels of a group up to whole chunks].
inline Operand as_channels_last(const Operand& operand, int groups, int element_size) {
  Operand result = operand;
  const int64_t pitch = groups * round_up(operand.sizes[1] / groups, 16 / element_size);
  result.strides = {operand.sizes[2] * operand.sizes[3] * pitch, 1, operand.sizes[3] * pitch, pitch};
  return result;
}

inline int64_t channels_last_bytes(const Operand& operand, int groups, int element_size) {
  const int64_t pitch = groups * round_up(operand.sizes[1] / groups, 16 / element_size);
  return operand.sizes[0] * operand.sizes[2] * operand.sizes[3] * pitch * element_size;
}

// A 1x1 convolution with a stride reads a few pixels of x, and nothing is gained by turning the others to
// channels-last: the same with stride 1, where x is the pixels that it reads. Any other problem as it is.
inline ConvProblem of_pixels_that_are_read(const ConvProblem& problem) {
  const bool is_read_in_place = piece_bytes_of(problem.x, problem.groups, size_of(problem.dtype)) != 0;
  const bool is_padded = problem.padding != decltype(problem.padding){};
  if (problem.pass == ConvPass::dgrad || problem.w.sizes[2] * problem.w.sizes[3] != 1 || is_padded ||
      is_read_in_place) {
    return problem;
  }
  ConvProblem dense = problem;
  for (int i = 0; i < 2; ++i) {
    dense.x.sizes[2 + i] = problem.y.sizes[2 + i];
    dense.x.strides[2 + i] *= problem.stride[i];
    dense.stride[i] = 1;
  }
  return dense;
}

// Of an operand, each element once: views of patches have some several times.
inline double distinct_bytes(const Operand& operand, int element_size) {
  return static_cast<double>(std::min(operand.count(), operand.last_offset() + 1)) * element_size;
}

// The part of a problem that some of its images make.
inline ConvProblem with_images(const ConvProblem& problem, int64_t images) {
  ConvProblem part = problem;
  for (Operand* operand : {&part.x, &part.y, &part.residual}) operand->sizes[0] = images;
  if (!problem.has_residual) part.residual = problem.residual;
  return part;
}

// Images that are turned to channels-last at a time: all of them where that leaves half of the workspace for other
// things, else as many as fill half of it, in parts as equal as can be. 0 where one image is too much.
inline int64_t images_at_once(const ConvProblem& problem, int64_t converted_bytes) {
  const int64_t images = problem.x.sizes[0], most = problem.most_workspace_bytes / 2;
  if (converted_bytes <= most || images == 0) return images;
  const int64_t fitting = most / divide_up(converted_bytes, images);
  return fitting == 0 ? 0 : divide_up(images, divide_up(images, fitting));
}

inline std::string too_much_workspace(const ConvProblem& problem, const std::string& what) {
  const int64_t most = problem.most_workspace_bytes;
  const std::string words =
      most % (1 << 20) == 0 ? std::to_string(most >> 20) + " MiB" : std::to_string(most) + " bytes";
  return what + " would take more than the " + words + " of workspace that there may be";
}

// Hands out the workspace in aligned pieces.
class Workspace {
 public:
  // Returns the offset of the piece.
  int64_t take(int64_t bytes) {
    const int64_t offset = bytes_;
    bytes_ += size_of({bytes});
    return offset;
  }
  int64_t bytes() const { return bytes_; }

  // Of pieces of so many bytes.
  static int64_t size_of(std::initializer_list<int64_t> pieces) {
    int64_t size = 0;
    for (int64_t bytes : pieces) size += round_up(bytes, 256);
    return size;
  }

 private:
  int64_t bytes_ = 0;
};

template <class Element>
void launch_to_channels_last(const Operand& operand, int groups, const void* source, void* destination, int64_t bytes,
                             const Stream& stream) {
  constexpr int kElement = sizeof(Element);
  const auto& [sizes, strides] = operand;
  const int64_t channels = sizes[1] / groups, pitch = round_up(channels, 16 / kElement);
  const bool rows_touch = strides[2] == sizes[3] * strides[3] || sizes[2] == 1;
  ToChannelsLastParameters parameters{};
  parameters.source = source;
  parameters.destination = destination;
  parameters.batch_stride = strides[0];
  parameters.row_stride = strides[2];
  parameters.pixel_stride = strides[3];
  parameters.channel_stride = strides[1];
  parameters.rows = FastDivider<uint32_t>(rows_touch ? 1 : static_cast<uint32_t>(sizes[2]));
  parameters.pixels = static_cast<int>(rows_touch ? sizes[2] * sizes[3] : sizes[3]);
  parameters.channels = static_cast<int>(channels);
  parameters.channel_pitch = static_cast<int>(pitch);
  parameters.all_pitches = static_cast<int>(groups * pitch);
  parameters.channel_pitch_divider = FastDivider<uint32_t>(static_cast<uint32_t>(pitch));
  const int64_t pixel_tiles = divide_up(parameters.pixels, kTransposePixels);
  const int64_t channel_tiles = divide_up(groups * pitch, kTransposeChannels<Element>);
  parameters.pixel_tiles = FastDivider<uint32_t>(static_cast<uint32_t>(pixel_tiles));
  parameters.channel_tiles = FastDivider<uint32_t>(static_cast<uint32_t>(channel_tiles));
  const bool strides_aligned = (strides[0] * kElement % 16 == 0 || sizes[0] == 1) &&
                               (strides[2] * kElement % 16 == 0 || rows_touch) &&
                               (strides[1] * kElement % 16 == 0 || sizes[1] == 1);
  // A column of one is no excuse: where rows touch, the pixels of a run are the rows, pixel_stride apart.
  parameters.vector_access =
      (strides[3] == 1 || strides[3] == 2 || parameters.pixels == 1) && strides_aligned && is_aligned(source);
  const int64_t blocks = sizes[0] * (rows_touch ? 1 : sizes[2]) * pixel_tiles * channel_tiles;
  launch_kernel({"to_channels_last", static_cast<unsigned>(blocks), kTransposeThreads, 0, kTransposeThreads},
                to_channels_last<Element>, parameters,
                // Aligned chunks of 16 bytes may end behind the last element; what is there is not used.
                {{"source", source,
                  parameters.vector_access ? round_up(bytes_of(operand, kElement), 16) : bytes_of(operand, kElement)},
                 {"channels_last", destination, bytes, true}},
                stream);
}

}  // namespace fastconv::mma
