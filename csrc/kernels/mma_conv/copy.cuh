// A chunk of 16 bytes on its way from a tensor to shared memory.
#pragma once

#include "kernels/mma_conv/shape.cuh"
#include "ptx/cp_async.h"

namespace fastconv::mma {

// For tensors whose pixels are not aligned to 16 bytes: pieces of 16, 8, 4 or 2 bytes. valid_bytes of the
// chunk are there.
__device__ __forceinline__ void copy_chunk_in_pieces(void* destination, const void* source, int valid_bytes,
                                                     int piece_bytes) {
  auto* to = static_cast<unsigned char*>(destination);
  const auto* from = static_cast<const unsigned char*>(source);
  const auto present = [valid_bytes](int offset, int bytes) { return max(0, min(valid_bytes - offset, bytes)); };
  if (piece_bytes == 16) {
    ptx::copy_async<16>(to, from, present(0, 16));
  } else if (piece_bytes == 8) {
#pragma unroll
    for (int i = 0; i < 16; i += 8) ptx::copy_async<8>(to + i, from + i, present(i, 8));
  } else if (piece_bytes == 4) {
#pragma unroll
    for (int i = 0; i < 16; i += 4) ptx::copy_async<4>(to + i, from + i, present(i, 4));
  } else {  // cp.async moves no less than 4 bytes
    ptx::Vector<uint16_t, 8> values;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      values[i] = 2 * i < valid_bytes ? reinterpret_cast<const uint16_t*>(from)[i] : uint16_t{0};
    }
    ptx::store_vector(reinterpret_cast<uint16_t*>(to), values);
  }
}

// element_count: channels from this one on; there may be none left.
template <class Element, bool narrow>
__device__ __forceinline__ void copy_chunk(void* destination, const void* source, bool valid, int element_count,
                                           int piece_bytes) {
  if constexpr (narrow) {
    const int bytes = valid ? min(16, max(0, element_count) * static_cast<int>(sizeof(Element))) : 0;
    copy_chunk_in_pieces(destination, source, bytes, piece_bytes);
  } else {
    ptx::copy_async<16>(destination, source, valid ? 16 : 0);
  }
}

}  // namespace fastconv::mma
