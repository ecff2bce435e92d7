// Finished outputs of a warp on their way through its shared memory, so that a lane holds 16 bytes of what is
// contiguous in the output. Elements of 16 bits are rounded on the way in: half the bytes, and nothing is left to do
// behind it but to store them. Not for outputs that get a residual, which is added before rounding.
#pragma once

#include "common/numeric.h"
#include "ptx/device.h"
#include "ptx/ldmatrix.h"
#include "ptx/pairs.h"

namespace fastconv::mma {

// `columns` outputs of each of kRowTiles * 16 rows. Rows are told as eights of them and a row of the eight. Fragments
// are written by put, as mma leaves them; all of a warp's lanes come here, with a __syncwarp between writes and reads.
template <class Element, int columns>
struct TurnedSlab {
  static_assert(sizeof(Element) == 2 && (columns == 32 || columns == 64), "see the banks below");
  static constexpr int kRowTiles = 2, kChunk = 8;
  static constexpr bool kHasOneOrder = true;  // it is transposed where it is read
  // In chunks. Those that are written or read at once differ modulo 8: eight rows of an eight, the chunks of one row or
  // two, and two neighbouring rows of each of four eights.
  static constexpr int kEightPitch = columns == 64 ? 74 : 41;
  static constexpr int kBytes = (4 * kEightPitch - (columns == 64 ? 3 : 6)) * 16;
  static constexpr int kBytesOfRows = kBytes;  // where nothing is read along rows

  static __device__ __forceinline__ int place(int eight, int row, int chunk) {
    return (eight * kEightPitch + (columns == 64 ? 9 * row : 4 * row + (row >> 1)) + chunk) * 16;
  }

  // Two neighbouring columns of the eight `eight`, of columns [8n, 8n + 8). along_rows: how they will be read.
  template <bool along_rows>
  static __device__ __forceinline__ void put(unsigned char* memory, int eight, int n, const float* two, float bound) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    const auto rounded =
        ptx::maximum_of_pairs(ptx::to_pair<Element>(two[0], two[1]), ptx::to_pair<Element>(bound, bound));
    ptx::store_vector(reinterpret_cast<Element*>(memory + place(eight, g, n) + 4 * t), rounded);
  }

  static __device__ __forceinline__ ptx::Vector<Element, kChunk> along_columns(const unsigned char* memory, int eight,
                                                                               int row, int chunk) {
    return ptx::load_vector<kChunk>(reinterpret_cast<const Element*>(memory + place(eight, row, chunk)));
  }

  // Eight rows of a column of [8n, 8n + 8): which ones is the lane's.
  static __device__ __forceinline__ int column_of_lane() { return (threadIdx.x & 31) >> 2; }
  static __device__ __forceinline__ int row_of_lane() { return (threadIdx.x & 3) * 8; }
  static __device__ __forceinline__ ptx::Vector<Element, kChunk> along_rows(const unsigned char* memory, int n) {
    // Transposed, matrix j gives lane (g, t) column g of its rows 2t and 2t + 1: let those be 2j and 2j + 1 of eight t.
    const int lane = threadIdx.x & 31, j = lane >> 3, row = lane & 7;
    uint32_t words[4];
    ptx::load_matrices<4, true>(words, memory + place(row >> 1, 2 * j + (row & 1), n));
    return ptx::detail::reinterpret_bits<ptx::Vector<Element, kChunk>>(
        ptx::Vector<uint32_t, 4>{words[0], words[1], words[2], words[3]});
  }
};

template <int columns>
struct TurnedSlab<float, columns> {
  static constexpr int kRowTiles = 1, kChunk = 4;
  static constexpr bool kHasOneOrder = false;
  // In floats: of a row, or of a column where rows lie side by side. Neither order has bank conflicts.
  static constexpr int kRowPitch = columns + 8, kColumnPitch = 20;
  static constexpr int kBytesOfRows = 16 * kRowPitch * 4, kBytesOfColumns = columns * kColumnPitch * 4;
  static constexpr int kBytes = kBytesOfRows > kBytesOfColumns ? kBytesOfRows : kBytesOfColumns;

  template <bool along_rows>
  static __device__ __forceinline__ void put(unsigned char* memory, int eight, int n, const float* two, float bound) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    auto* floats = reinterpret_cast<float*>(memory);
    const float first = two[0] < bound ? bound : two[0], second = two[1] < bound ? bound : two[1];
    if constexpr (along_rows) {
      floats[(8 * n + 2 * t) * kColumnPitch + 8 * eight + g] = first;
      floats[(8 * n + 2 * t + 1) * kColumnPitch + 8 * eight + g] = second;
    } else {
      ptx::store_vector(floats + (8 * eight + g) * kRowPitch + 8 * n + 2 * t, ptx::Vector<float, 2>{first, second});
    }
  }

  static __device__ __forceinline__ ptx::Vector<float, kChunk> along_columns(const unsigned char* memory, int eight,
                                                                             int row, int chunk) {
    return ptx::load_vector<kChunk>(reinterpret_cast<const float*>(memory) + (8 * eight + row) * kRowPitch + 4 * chunk);
  }

  static __device__ __forceinline__ int column_of_lane() { return threadIdx.x & 7; }
  static __device__ __forceinline__ int row_of_lane() { return (threadIdx.x & 31) >> 3 << 2; }
  static __device__ __forceinline__ ptx::Vector<float, kChunk> along_rows(const unsigned char* memory, int n) {
    return ptx::load_vector<kChunk>(reinterpret_cast<const float*>(memory) + (8 * n + column_of_lane()) * kColumnPitch +
                                    row_of_lane());
  }
};

}  // namespace fastconv::mma
