// The two operands of wgrad on their way to shared memory: slices of kDepth output pixels, dy beside what each tap
// reads of x.
#pragma once

#include "kernels/mma_conv/border.cuh"
#include "kernels/mma_conv/parameters.h"

namespace fastconv::mma {

// Where an output pixel lies in dy and in x. A few threads work this out for each slice, one slice before it is copied.
struct PixelPlace {
  int64_t gradient;  // offset in dy, -1 where there is no such pixel
  int64_t source;    // offset in x of tap (0, 0); may be before the tensor
  int row, column;   // of tap (0, 0) in x; kNoCorner where there is no such pixel
};
constexpr int kNoCorner = INT32_MIN / 2;  // outside of x, whatever the tap

__device__ __forceinline__ PixelPlace pixel_place(const WgradParameters& parameters, uint32_t pixel) {
  if (pixel >= static_cast<uint32_t>(parameters.pixels)) return {-1, 0, kNoCorner, kNoCorner};
  const uint32_t rows = parameters.output_width.split(pixel);
  uint32_t row = rows;
  const int64_t batch = parameters.output_height.split(row);
  const int source_row = static_cast<int>(row) * parameters.stride_height - parameters.pad_top;
  const int source_column = static_cast<int>(pixel) * parameters.stride_width - parameters.pad_left;
  const PixelStrides &gradient = parameters.gradient_strides, &source = parameters.source_strides;
  return {batch * gradient.batch + row * gradient.row + pixel * gradient.column,
          batch * source.batch + source_row * source.row + source_column * source.column, source_row, source_column};
}

// The places of a slice's pixels in shared memory: offsets apart from corners, so that neighbouring threads, which
// write neighbouring pixels, use all banks.
template <int kDepth>
struct PixelTable {
  int64_t offsets[kDepth][2];  // in dy, in x
  int corners[kDepth][2];      // row, column

  __device__ __forceinline__ void store(int i, const PixelPlace& place) {
    ptx::store_vector(offsets[i], ptx::Vector<int64_t, 2>{place.gradient, place.source});
    ptx::store_vector(corners[i], ptx::Vector<int, 2>{place.row, place.column});
  }
};

// How the chunks of a [kDepth][width] tile are shared among the threads.
template <class Shape, int width>
struct DepthwiseChunks {
  static constexpr int kChunks = width / Shape::kChunk;
  static constexpr int kRowStep = Shape::kThreads / kChunks;
  static constexpr int kRows = (Shape::kDepth + kRowStep - 1) / kRowStep;
  static_assert(Shape::kThreads % kChunks == 0, "a thread keeps its chunk");

  const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;

  // Whether a thread's i-th row is one of the slice's: where they cannot be shared evenly, the last may be past it.
  __device__ __forceinline__ bool has(int i) const {
    return Shape::kDepth % kRowStep == 0 || row + i * kRowStep < Shape::kDepth;
  }

  __device__ __forceinline__ int place(int i) const {  // in bytes
    const int k = row + i * kRowStep;
    if constexpr (sizeof(typename Shape::Element) == 4) return swizzled_for_words<kChunks>(k, chunk) * 16;
    return swizzled<kChunks>(k, chunk) * 16;
  }
};

// dy: the same filters of every pixel.
template <class Shape, bool narrow>
class GradientLoader {
  using Element = typename Shape::Element;
  using Chunks = DepthwiseChunks<Shape, Shape::kRows>;

 public:
  __device__ __forceinline__ GradientLoader(const WgradParameters& parameters, int group, int first_filter)
      : left_(parameters.filters - first_filter - chunks_.chunk * Shape::kChunk),
        piece_bytes_(parameters.gradient_piece_bytes) {
    pointer_ = static_cast<const Element*>(parameters.gradient) + int64_t{group} * parameters.gradient_group_step +
               first_filter + chunks_.chunk * Shape::kChunk;
  }

  __device__ __forceinline__ void load(unsigned char* stage, const PixelTable<Shape::kDepth>& pixels) const {
#pragma unroll
    for (int i = 0; i < Chunks::kRows; ++i) {
      if (!chunks_.has(i)) continue;
      const int64_t offset = pixels.offsets[chunks_.row + i * Chunks::kRowStep][0];
      copy_chunk<Element, narrow>(stage + chunks_.place(i), pointer_ + offset, offset >= 0 && left_ > 0, left_,
                                  piece_bytes_);
    }
  }

 private:
  const Chunks chunks_;
  const int left_, piece_bytes_;
  const Element* pointer_;
};

// x: the same tap and channels of every pixel.
template <class Shape, bool narrow>
class TapLoader {
  using Element = typename Shape::Element;
  using Chunks = DepthwiseChunks<Shape, Shape::kColumns>;

 public:
  __device__ __forceinline__ TapLoader(const WgradParameters& parameters, int group, int first_column)
      : parameters_(parameters),
        height_(parameters.source_height),
        width_(parameters.source_width),
        piece_bytes_(parameters.source_piece_bytes) {
    uint32_t channel = first_column + chunks_.chunk * Shape::kChunk;
    const uint32_t tap = parameters.channel_pitch.split(channel);
    uint32_t tap_column = tap;
    const uint32_t tap_row = parameters.taps_across.split(tap_column);
    left_ = tap < static_cast<uint32_t>(parameters.taps) ? parameters.channels - static_cast<int>(channel) : 0;
    row_ = tap_row * parameters.dilation_height;
    column_ = tap_column * parameters.dilation_width;
    pointer_ = static_cast<const Element*>(parameters.source) + int64_t{group} * parameters.source_group_step +
               channel + row_ * parameters.source_strides.row + column_ * parameters.source_strides.column;
  }

  __device__ __forceinline__ void load(unsigned char* stage, const PixelTable<Shape::kDepth>& pixels) const {
#pragma unroll
    for (int i = 0; i < Chunks::kRows; ++i) {
      if (!chunks_.has(i)) continue;
      const int pixel = chunks_.row + i * Chunks::kRowStep;
      const auto corner = ptx::load_vector<2>(pixels.corners[pixel]);
      const int row = corner[0] + row_, column = corner[1] + column_;
      const Element* from = pointer_ + pixels.offsets[pixel][1];
      bool inside = static_cast<uint32_t>(row) < static_cast<uint32_t>(height_) &&
                    static_cast<uint32_t>(column) < static_cast<uint32_t>(width_);
      if (!inside && parameters_.border.is_mapped && corner[0] != kNoCorner && left_ > 0) {
        const BorderWay way = border_way(parameters_.border, parameters_.source_strides, row, column);
        if (way.is_constant) {
          store_constant<Element>(stage + chunks_.place(i), parameters_.border, left_);
          continue;
        }
        inside = true;
        from += way.distance;
      }
      copy_chunk<Element, narrow>(stage + chunks_.place(i), from, inside && left_ > 0, left_, piece_bytes_);
    }
  }

 private:
  const WgradParameters& parameters_;
  const Chunks chunks_;
  const int height_, width_, piece_bytes_;
  int left_, row_, column_;
  const Element* pointer_;
};

}  // namespace fastconv::mma
