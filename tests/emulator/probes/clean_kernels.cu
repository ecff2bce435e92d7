// Kernels that do nothing wrong and must not be reported, whatever the order of their threads.
#include "probe.h"

constexpr unsigned kWholeWarp = 0xffffffffu;

// x [n] -> y [1], one block: every warp reduces through shared memory, lanes ordered by __syncwarp alone.
PROBE(warp_synchronous_reduce) {
  __shared__ float tile[256];
  __shared__ float sums[8];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* own = tile + 32 * warp;
  own[lane] = p.as<const float>(0)[threadIdx.x];
  __syncwarp();
  for (int step = 16; step > 0; step /= 2) {
    const float sum = lane < step ? own[lane] + own[lane + step] : 0.0f;
    __syncwarp();
    if (lane < step) own[lane] = sum;
    __syncwarp();
  }
  if (lane == 0) sums[warp] = own[0];
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0.0f;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += sums[w];
    p.as<float>(1)[0] = sum;
  }
}

// y[i] = x[(i + 1) % n] tile by tile: the next tile is written while the current one is read.
PROBE(double_buffered_tile) {
  __shared__ float tile[2][128];
  const float* x = p.as<const float>(0);
  float* y = p.as<float>(1);
  const int t = threadIdx.x, tiles = p.n / 128;
  tile[0][t] = x[t];
  __syncthreads();
  for (int i = 0; i < tiles; ++i) {
    if (i + 1 < tiles) tile[(i + 1) % 2][t] = x[128 * (i + 1) + t];
    y[128 * i + t] = tile[i % 2][(t + 1) % 128];
    __syncthreads();
  }
}

__device__ float block_sum(float value) {
  __shared__ float sums[32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(kWholeWarp, value, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x < 32) {
    value = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.0f;
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(kWholeWarp, value, step);
  }
  __syncthreads();
  return value;
}

// x [n] -> y [blocks], twice over, so that the reduction's shared memory is used again.
PROBE(block_reduce) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const float first = block_sum(i < p.n ? p.as<const float>(0)[i] : 0.0f);
  const float second = block_sum(1.0f);
  if (threadIdx.x == 0) p.as<float>(1)[blockIdx.x] = first + second;
}

PROBE(grid_stride_loop) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < p.n; i += gridDim.x * blockDim.x) {
    p.as<float>(1)[i] = 2.0f * p.as<const float>(0)[i];
  }
}

// Integers n -> histogram of their low four bits, in shared and then in global memory.
PROBE(atomic_histogram) {
  __shared__ unsigned bins[16];
  if (threadIdx.x < 16) bins[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < p.n; i += gridDim.x * blockDim.x) {
    atomicAdd(&bins[p.as<const int>(0)[i] & 15], 1);
  }
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(p.as<unsigned>(1) + threadIdx.x, bins[threadIdx.x]);
}

// A thread that has nothing to do may leave where nobody waits for it.
PROBE(exit_without_barrier) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.n) return;
  p.as<float>(1)[i] = p.as<const float>(0)[i];
}

// Two warps produce, two consume; a barrier of both says full, another says empty. The producers do not wait at "full",
// the consumers not at "empty".
PROBE(producer_and_consumer) {
  __shared__ float tile[64];
  const int rounds = p.n / 64, t = threadIdx.x % 64;
  if (threadIdx.x < 64) {
    for (int i = 0; i < rounds; ++i) {
      fastconv::ptx::barrier_sync(2, 128);
      tile[t] = p.as<const float>(0)[64 * i + t];
      fastconv::ptx::barrier_arrive(1, 128);
    }
  } else {
    for (int i = 0; i < rounds; ++i) {
      fastconv::ptx::barrier_arrive(2, 128);
      fastconv::ptx::barrier_sync(1, 128);
      p.as<float>(1)[64 * i + t] = tile[63 - t];
    }
  }
}

// The last block to finish adds up what all have written.
PROBE(last_block_adds) {
  __shared__ bool last;
  float* partial = p.as<float>(1);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = blockIdx.x + 1.0f;
    __threadfence();
    last = atomicAdd(p.as<unsigned>(2), 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float sum = 0.0f;
    for (unsigned block = 0; block < gridDim.x; ++block) sum += partial[block];
    p.as<float>(3)[0] = sum;
  }
}

// Every lane of half a warp meets only its half.
PROBE(half_warps_apart) {
  __shared__ float tile[32];
  const unsigned mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  for (int round = 0; round < 4; ++round) {
    tile[threadIdx.x] = round;
    __syncwarp(mask);
    p.as<float>(1)[32 * round + threadIdx.x] = tile[threadIdx.x ^ 15];
    __syncwarp(mask);
  }
}

// 16-bit neighbours written by different threads share a word, which is no race.
PROBE(halves_of_a_word) {
  __shared__ unsigned short tile[256];
  tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  p.as<unsigned short>(1)[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// A table in constant memory, a local array, and a pointer to it.
__constant__ const float kTable[4] = {1.0f, 2.0f, 3.0f, 4.0f};
__device__ __attribute__((noinline)) float sum_of(const float* values, int count) {
  float sum = 0.0f;
  for (int i = 0; i < count; ++i) sum += values[i];
  return sum;
}
PROBE(constants_and_locals) {
  float local[4];
  for (int i = 0; i < 4; ++i) local[i] = kTable[(i + threadIdx.x) % 4] * p.n;
  p.as<float>(1)[threadIdx.x] = sum_of(local, 4);
}

// One unrolled barrier stands in many places of the machine code and in one line of the source.
PROBE(unrolled_barriers) {
  __shared__ float tile[64];
  tile[threadIdx.x] = 0.0f;
  const int rounds = threadIdx.x < 32 ? 4 : 4 + p.n;
#pragma GCC unroll 4
  for (int i = 0; i < rounds; ++i) {
    __syncthreads();
    tile[threadIdx.x ^ (i & 1 ? 1 : 0)] += 1.0f;
  }
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];
}

PROBE(large_dynamic_shared) {
  float* tile = fastconv::ptx::dynamic_shared_memory<float>();
  for (int i = threadIdx.x; i < p.n; i += blockDim.x) tile[i] = i;
  __syncthreads();
  for (int i = threadIdx.x; i < p.n; i += blockDim.x) p.as<float>(1)[i] = tile[p.n - 1 - i];
}
