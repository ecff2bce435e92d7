// How depthwise wgrad with W innermost is shared out. A block has one filter, a group of its taps and a part of the
// images (a split). Its warps take pieces in turn, rows of one image or several small images, copy x and dy as they lie
// to shared memory, and sum. Blocks' sums are written, or where there are splits added up by split_sum.cuh.
#pragma once

#include "kernels/depthwise/exact_tap.cuh"
#include "kernels/depthwise/flat.cuh"
#include "kernels/depthwise/planes.cuh"

namespace fastconv::depthwise {

struct PlanesWgradParameters {
  const void* x;  // [N, C, H, W]
  const void* x_end;
  const void* dy;  // [N, K, P, Q]
  const void* dy_end;
  void* dw;           // [K, 1, R, S]; written where there is one split
  void* db;           // [K], or null; likewise
  float* parts;       // [splits, K, R, S], or null
  float* bias_parts;  // [splits, K]
  Plane x_strides, dy_strides;
  Weights dw_strides;
  Axis rows, columns;
  FastDivider<uint32_t> multiplier;                   // filters of a channel
  FastDivider<uint32_t> output_columns, output_rows;  // of a plane
  LaneGroups lanes;                                   // for filters that are unrolled
  int images, images_of_piece, strip_rows;            // more than one image: strip_rows is the whole plane
  FastDivider<uint32_t> strips;                       // pieces of an image
  int pieces, pieces_of_split;
  FastDivider<uint32_t> filters, tap_groups;  // grid: filters fastest, then tap groups, then splits
  FastDivider<uint32_t> groups_of_row;        // tap groups of a filter row
  int x_pitch, dy_pitch;                      // elements from image to image in shared memory
  int dy_place, warp_bytes;                   // in a warp's shared memory
};

// What a block has.
struct WgradShare {
  uint32_t filter, tap_group, split, channel;
  int first_piece, end_piece;

  __device__ __forceinline__ explicit WgradShare(const PlanesWgradParameters& p) {
    filter = blockIdx.x;
    tap_group = p.filters.split(filter);
    split = p.tap_groups.split(tap_group);
    channel = p.multiplier.divide(filter);
    first_piece = static_cast<int>(split) * p.pieces_of_split;
    end_piece = min(first_piece + p.pieces_of_split, p.pieces);
  }

  // The block's sum of a tap of the filter.
  template <typename T>
  __device__ __forceinline__ void write_tap(const PlanesWgradParameters& p, int r, int s, float total) const {
    if (p.parts != nullptr) {
      p.parts[(part(p) * p.rows.taps + r) * p.columns.taps + s] = total;
    } else {
      static_cast<T*>(p.dw)[filter * p.dw_strides.filter + r * p.dw_strides.row + s * p.dw_strides.column] =
          Numeric<T>::store(total);
    }
  }

  // All blocks of a filter's taps have the same sum; one writes it.
  template <typename T>
  __device__ __forceinline__ void write_bias(const PlanesWgradParameters& p, float total) const {
    if (p.db == nullptr || tap_group != 0) return;
    if (p.parts != nullptr) {
      p.bias_parts[part(p)] = total;
    } else {
      static_cast<T*>(p.db)[filter] = Numeric<T>::store(total);
    }
  }

  // The block's sum of tap (r, s): `total`, or where that is not `trusted` the sum by the definition. All lanes of a
  // warp come here, each with its tap, and compute such sums together.
  template <typename T>
  __device__ __forceinline__ float checked_tap(const PlanesWgradParameters& p, int r, int s, float total,
                                               bool trusted) const {
    uint32_t suspects = __ballot_sync(0xffffffffu, !trusted);
#pragma unroll 1
    for (; suspects != 0; suspects &= suspects - 1) {
      const int owner = __ffs(static_cast<int>(suspects)) - 1;
      float sum = exact_part<T>(p, __shfl_sync(0xffffffffu, r, owner), __shfl_sync(0xffffffffu, s, owner));
#pragma unroll
      for (int distance = kWarp / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
      if (static_cast<int>(threadIdx.x % kWarp) == owner) total = sum;
    }
    return total;
  }

 private:
  // This lane's part of the sum by the definition.
  template <typename T>
  __device__ float exact_part(const PlanesWgradParameters& p, int r, int s) const;

  __device__ __forceinline__ int64_t part(const PlanesWgradParameters& p) const {
    return static_cast<int64_t>(split) * p.filters.divisor() + filter;
  }
};

// What a warp takes at a time.
template <typename T>
struct WgradPiece {
  int first_image, images, first_row, end_row;  // rows of dy
  RowRange range;                               // rows of x
  const T *x, *dy;

  __device__ __forceinline__ WgradPiece(const PlanesWgradParameters& p, const WgradShare& share, int piece)
      : WgradPiece(p, share, Place(p, piece)) {}

  // Copies it to shared memory. x has kPlaneGuard elements of room in front, and behind, which are zeroed where rows
  // are read over: planes.cuh.
  template <bool with_guards>
  __device__ __forceinline__ void stage(const PlanesWgradParameters& p, T* staged_x, T* staged_dy) const {
    const int lane = threadIdx.x % kWarp;
    const int x_count = (range.end - range.first) * p.columns.source;
    const int dy_count = (end_row - first_row) * p.columns.output;
    __syncwarp();
#pragma unroll 1
    for (int image = 0; image < images; ++image) {
      const T* from = x + image * p.x_strides.batch;
      T* to = staged_x + image * p.x_pitch;
      stage_flat(to, from, x_count, static_cast<const T*>(p.x), static_cast<const T*>(p.x_end));
      stage_flat(staged_dy + image * p.dy_pitch, dy + image * p.dy_strides.batch, dy_count, static_cast<const T*>(p.dy),
                 static_cast<const T*>(p.dy_end));
      if (with_guards && lane < kPlaneGuard) {
        to[lane - kPlaneGuard] = T{};
        to[(misalignment(from) + x_count + kChunk<T> - 1) / kChunk<T> * kChunk<T> + lane] = T{};
      }
    }
    ptx::commit_async_copies();
    ptx::wait_async_copies<0>();
    __syncwarp();
  }

  __device__ __forceinline__ PlaneView<T> view(const PlanesWgradParameters& p, const T* staged_x, int image) const {
    return {staged_x + image * p.x_pitch + misalignment(x + image * p.x_strides.batch), range.first,
            range.end - range.first, p.columns.source};
  }

  // [end_row - first_row, Q]
  __device__ __forceinline__ const T* gradients(const PlanesWgradParameters& p, const T* staged_dy, int image) const {
    return staged_dy + image * p.dy_pitch + misalignment(dy + image * p.dy_strides.batch);
  }

 private:
  struct Place {
    int first_image, first_row, end_row;

    __device__ __forceinline__ Place(const PlanesWgradParameters& p, int piece) {
      uint32_t strip = piece;
      first_image = static_cast<int>(p.strips.split(strip)) * p.images_of_piece;
      first_row = static_cast<int>(strip) * p.strip_rows;
      end_row = min(first_row + p.strip_rows, p.rows.output);
    }
  };

  __device__ __forceinline__ WgradPiece(const PlanesWgradParameters& p, const WgradShare& share, const Place& place)
      : first_image(place.first_image),
        images(min(p.images_of_piece, p.images - place.first_image)),
        first_row(place.first_row),
        end_row(place.end_row),
        range(p.rows, false, first_row, end_row),
        x(static_cast<const T*>(p.x) + place.first_image * p.x_strides.batch + share.channel * p.x_strides.channel +
          static_cast<int64_t>(range.first) * p.columns.source),
        dy(static_cast<const T*>(p.dy) + place.first_image * p.dy_strides.batch + share.filter * p.dy_strides.channel +
           static_cast<int64_t>(first_row) * p.columns.output) {}
};

template <typename T>
__device__ float WgradShare::exact_part(const PlanesWgradParameters& p, int r, int s) const {
  float sum = 0;
#pragma unroll 1
  for (int piece = first_piece; piece < end_piece; ++piece) {
    const WgradPiece<T> here(p, *this, piece);
#pragma unroll 1
    for (int image = here.first_image; image < here.first_image + here.images; ++image) {
      const ChannelPlane<T> x{static_cast<const T*>(p.x) + image * p.x_strides.batch + channel * p.x_strides.channel,
                              p.x_strides.row, p.x_strides.column};
      const ChannelPlane<T> dy{static_cast<const T*>(p.dy) + image * p.dy_strides.batch + filter * p.dy_strides.channel,
                               p.dy_strides.row, p.dy_strides.column};
      sum += exact_tap(x, dy, p.rows, p.columns, here.first_row, here.end_row, 0, p.columns.output, r, s,
                       static_cast<int>(threadIdx.x % kWarp), kWarp);
    }
  }
  return sum;
}

}  // namespace fastconv::depthwise
