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
  const int whole = end & ~(kSegmentAccess - 1), first = static_cast<int>(threadIdx.x) * kSegmentAccess;
#pragma unroll 4
  for (int i = first; i < whole; i += threads * kSegmentAccess) {
    ptx::copy_async<kSegmentAccess>(target + i, source + i, kSegmentAccess);
  }
  if (threadIdx.x == 0 && whole < end) ptx::copy_async<kSegmentAccess>(target + whole, source + whole, end - whole);
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
  const int first_whole = (lead + kElements - 1) / kElements * kElements, end_whole = end / kElements * kElements;
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll 4
  for (int i = first_whole + thread * kElements; i < end_whole; i += threads * kElements) {
    ptx::store_vector(target + i, ptx::load_vector<kElements>(source + i));
  }
  // Fewer elements at either end than a block has threads.
  const int head = lead + thread, tail = max(first_whole, end_whole) + thread;
  if (head < min(first_whole, end)) target[head] = source[head];
  if (tail < end) target[tail] = source[tail];
}

}  // namespace fastconv
