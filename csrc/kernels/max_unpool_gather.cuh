// x = y at each index: what max_unpool.cuh has put there.
//
// Where x and the indices are dense, and lie alike, a warp reads the indices and writes x 16 bytes at a time. Between
// the two it picks elements of y, neighbours by neighbouring lanes; shared memory turns one order into the other.
#pragma once

#include "common/host_device.h"
#include "kernels/max_unpool.cuh"
#include "ptx/vector.h"

namespace fastconv {

struct GatherPlace {
  uint64_t n, channel;
  int source;  // row * Q + column
};

__device__ __forceinline__ GatherPlace gather_place(const UnpoolParameters& p, int64_t number) {
  uint64_t source = static_cast<uint64_t>(number), channel, n;
  if (p.channels_are_fastest) {
    channel = source;
    source = p.channel_divider.split(channel);
    n = p.plane_divider.split(source);
  } else {
    channel = p.plane_divider.split(source);
    n = p.channel_divider.split(channel);
  }
  return {n, channel, static_cast<int>(source)};
}

// The element of y at a position. Bits: an unsigned integer as wide as the number type.
template <typename Bits>
__device__ __forceinline__ Bits pick(const UnpoolParameters& p, const GatherPlace& place, int position) {
  const int64_t plane = static_cast<int64_t>(place.n) * p.value_strides.batch +
                        static_cast<int64_t>(place.channel) * p.value_strides.channel;
  return static_cast<const Bits*>(p.values)[plane + at_flat(p.value_strides, p.position_columns, position)];
}

template <typename Bits>
__global__ void __launch_bounds__(kUnpoolThreads) max_unpool_gather_kernel(const __grid_constant__ UnpoolParameters p) {
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kUnpoolThreads + threadIdx.x;
  if (number >= p.tasks) return;
  const GatherPlace place = gather_place(p, number);
  const auto offset = [&](const Strides<int64_t>& strides) {
    return static_cast<int64_t>(place.n) * strides.batch + static_cast<int64_t>(place.channel) * strides.channel +
           at_flat(strides, p.source_columns, place.source);
  };
  const int64_t index = p.indices[offset(p.index_strides)];
  require_position(p, index);
  const bool is_position = is_inside(index, static_cast<int64_t>(p.positions));
  static_cast<Bits*>(p.output)[offset(p.output_strides)] =
      is_position ? pick<Bits>(p, place, static_cast<int>(index)) : Bits{0};
}

// Elements of x that a block of the kernel below has: 16 bytes a thread.
FASTCONV_HOST_DEVICE constexpr int gather_elements_of_block(int size) {
  return kUnpoolThreads * 16 / size;
}

// x and the indices dense, in the order of their numbers, from boundaries of 16 bytes.
template <typename Bits>
__global__ void __launch_bounds__(kUnpoolThreads)
    max_unpool_gather_vectors_kernel(const __grid_constant__ UnpoolParameters p) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(Bits)), kPairs = kElements / 2;
  __shared__ ptx::Vector<int, 2> shared_positions[kUnpoolWarps][kElements * 16];
  __shared__ ptx::Vector<Bits, kElements> shared_values[kUnpoolWarps][32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int* positions = reinterpret_cast<int*>(shared_positions[warp]);  // [kElements * 32], -1: there is none
  Bits* values = reinterpret_cast<Bits*>(shared_values[warp]);      // likewise
  const int64_t first = static_cast<int64_t>(blockIdx.x) * gather_elements_of_block(sizeof(Bits)) +
                        static_cast<int64_t>(warp) * kElements * 32;

  ptx::Vector<int64_t, 2> index[kPairs];
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int64_t number = first + i * 64 + lane * 2;
    if (number + 2 <= p.tasks) {
      index[i] = ptx::load_vector<2>(p.indices + number);
    } else {
      index[i][0] = number < p.tasks ? p.indices[number] : -1;
      index[i][1] = -1;
    }
  }
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    ptx::Vector<int, 2> pair;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (first + i * 64 + lane * 2 + e < p.tasks) require_position(p, index[i][e]);
      pair[e] = is_inside(index[i][e], static_cast<int64_t>(p.positions)) ? static_cast<int>(index[i][e]) : -1;
    }
    ptx::store_vector(positions + i * 64 + lane * 2, pair);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kElements * 32; i += 32) {
    const int position = positions[i + lane];
    values[i + lane] = position >= 0 ? pick<Bits>(p, gather_place(p, first + i + lane), position) : Bits{0};
  }
  __syncwarp();
  Bits* x = static_cast<Bits*>(p.output) + first + lane * kElements;
  const int64_t left = p.tasks - first - lane * kElements;
  if (left >= kElements) {
    ptx::store_vector(x, ptx::load_vector<kElements>(values + lane * kElements));
  } else {
    for (int e = 0; e < left; ++e) x[e] = values[lane * kElements + e];
  }
}

}  // namespace fastconv
