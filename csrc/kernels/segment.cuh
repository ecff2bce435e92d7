// A contiguous piece of a tensor, moved between global and shared memory by a block in 16-byte accesses, wherever it
// begins. In shared memory it keeps its place relative to the 16-byte boundaries: its first byte lies `lead` bytes in.
#pragma once

#include "ptx/cp_async.h"
#include "ptx/device.h"

namespace fastconv {

constexpr int kSegmentAccess = 16;

// Bytes of shared memory that a segment of that many bytes needs, wherever it begins.
constexpr int segment_room(int bytes) {
  return (bytes + 2 * kSegmentAccess - 2) / kSegmentAccess * kSegmentAccess;
}

__device__ __forceinline__ int segment_lead(int64_t begin) {
  return static_cast<int>(begin & (kSegmentAccess - 1));
}

// Starts copying the bytes [begin, begin + bytes) of a tensor that is aligned to 16 bytes. What is copied beside them
// lies before them, in the tensor too.
__device__ __forceinline__ void fetch_segment(void* shared, const void* tensor, int64_t begin, int bytes, int threads) {
  const int lead = segment_lead(begin), end = lead + bytes;
  const unsigned char* source = static_cast<const unsigned char*>(tensor) + (begin - lead);
  unsigned char* target = static_cast<unsigned char*>(shared);
  for (int i = static_cast<int>(threadIdx.x) * kSegmentAccess; i < end; i += threads * kSegmentAccess) {
    ptx::copy_async<kSegmentAccess>(target + i, source + i, min(kSegmentAccess, end - i));
  }
}

// Writes the bytes [begin, begin + bytes): whole accesses but for the elements at the ends that share one with a
// neighbour.
template <typename Element>
__device__ __forceinline__ void store_segment(void* tensor, int64_t begin, int bytes, const void* shared, int threads) {
  constexpr int kElements = kSegmentAccess / static_cast<int>(sizeof(Element));
  const int lead = segment_lead(begin) / static_cast<int>(sizeof(Element));
  const int end = lead + bytes / static_cast<int>(sizeof(Element));
  Element* target = reinterpret_cast<Element*>(static_cast<unsigned char*>(tensor) + (begin - segment_lead(begin)));
  const Element* source = static_cast<const Element*>(shared);
  for (int i = static_cast<int>(threadIdx.x) * kElements; i < end; i += threads * kElements) {
    if (i >= lead && i + kElements <= end) {
      ptx::store_vector(target + i, ptx::load_vector<kElements>(source + i));
    } else {
#pragma unroll 1
      for (int j = max(i, lead); j < min(i + kElements, end); ++j) target[j] = source[j];
    }
  }
}

}  // namespace fastconv
