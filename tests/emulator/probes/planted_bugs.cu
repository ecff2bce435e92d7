// Kernels with one mistake each. The line of the mistake ends with "// <- " and the kernel's name.
#include "probe.h"

constexpr unsigned kWholeWarp = 0xffffffffu;

PROBE(reads_past_the_end) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  p.as<float>(1)[i] = p.as<const float>(0)[i + 1];  // <- reads_past_the_end
}

PROBE(reads_before_the_start) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  p.as<float>(1)[i] = p.as<const float>(0)[i - 1];  // <- reads_before_the_start
}

PROBE(writes_past_the_end) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  p.as<float>(1)[i + 2] = 1.0f;  // <- writes_past_the_end
}

PROBE(writes_read_only_tensor) {
  p.as<float>(0)[threadIdx.x] = 1.0f;  // <- writes_read_only_tensor
}

PROBE(vector_reads_past_the_end) {
  const auto values =
      fastconv::ptx::load_vector<4>(p.as<const float>(0) + 4 * threadIdx.x);  // <- vector_reads_past_the_end
  fastconv::ptx::store_vector(p.as<float>(1) + 4 * threadIdx.x, values);
}

PROBE(misaligned_vector) {
  const auto values = fastconv::ptx::load_vector<4>(p.as<const float>(0) + 1);  // <- misaligned_vector
  p.as<float>(1)[threadIdx.x] = values[0];
}

PROBE(atomic_past_the_end) {
  atomicAdd(p.as<float>(1) + blockDim.x + threadIdx.x, 1.0f);  // <- atomic_past_the_end
}

PROBE(null_pointer) {
  p.as<float>(1)[threadIdx.x] = *static_cast<const volatile float*>(p.as<const float>(3));  // <- null_pointer
}

PROBE(static_shared_past_the_end) {
  __shared__ float tile[64];
  tile[threadIdx.x + 1] = 1.0f;  // <- static_shared_past_the_end
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];
}

// Lies behind the tile of the kernel above, or before it.
PROBE(neighbour_in_shared_memory) {
  __shared__ float neighbour[64];
  neighbour[threadIdx.x] = 1.0f;
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = neighbour[threadIdx.x ^ 1];
}

PROBE(dynamic_shared_past_the_end) {
  float* tile = fastconv::ptx::dynamic_shared_memory<float>();
  tile[threadIdx.x + 1] = 1.0f;  // <- dynamic_shared_past_the_end
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];
}

PROBE(uninitialised_static_shared) {
  __shared__ float tile[64];
  if (threadIdx.x % 2 == 0) tile[threadIdx.x] = 1.0f;
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];  // <- uninitialised_static_shared
}

PROBE(uninitialised_dynamic_shared) {
  float* tile = fastconv::ptx::dynamic_shared_memory<float>();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];  // <- uninitialised_dynamic_shared
}

// What an earlier block left is not this block's.
PROBE(relies_on_an_earlier_block) {
  __shared__ float tile[64];
  if (blockIdx.x == 0) tile[threadIdx.x] = 1.0f;
  __syncthreads();
  p.as<float>(1)[blockIdx.x * blockDim.x + threadIdx.x] = tile[threadIdx.x];  // <- relies_on_an_earlier_block
}

PROBE(missing_first_barrier) {
  __shared__ float tile[128];
  tile[threadIdx.x] = 1.0f;
  p.as<float>(1)[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];  // <- missing_first_barrier
}

PROBE(missing_barrier) {
  __shared__ float tile[128];
  tile[threadIdx.x] = 0.0f;
  __syncthreads();
  tile[threadIdx.x] = 1.0f;                                          // <- missing_barrier
  p.as<float>(1)[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];  // <- missing_barrier
}

PROBE(missing_barrier_before_overwriting) {
  __shared__ float tile[128];
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  const float value = tile[blockDim.x - 1 - threadIdx.x];
  tile[threadIdx.x] = value + 1.0f;  // <- missing_barrier_before_overwriting
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];
}

PROBE(all_write_one_element) {
  __shared__ int winner;
  winner = threadIdx.x;  // <- all_write_one_element
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = winner;
}

// The lanes of a warp do not run in step.
PROBE(relies_on_warps_in_step) {
  __shared__ float tile[32];
  tile[threadIdx.x] = 1.0f;
  __syncwarp();
  const float other = tile[threadIdx.x ^ 1];
  tile[threadIdx.x] = other + 1.0f;  // <- relies_on_warps_in_step
  __syncwarp();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];
}

// __syncwarp orders the lanes of one warp, and two warps exchange.
PROBE(warp_barrier_for_two_warps) {
  __shared__ float tile[64];
  tile[threadIdx.x] = 1.0f;
  __syncwarp();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x ^ 32];  // <- warp_barrier_for_two_warps
}

// The barrier has two of the four warps, the third reads what they wrote.
PROBE(named_barrier_without_the_reader) {
  __shared__ float tile[64];
  if (threadIdx.x < 64) {
    tile[threadIdx.x] = 1.0f;
    fastconv::ptx::barrier_sync(1, 64);
  } else {
    fastconv::ptx::barrier_sync(2, 64);
    p.as<float>(1)[threadIdx.x] = tile[threadIdx.x - 64];  // <- named_barrier_without_the_reader
  }
}

PROBE(atomic_and_plain_write) {
  __shared__ int sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  if (threadIdx.x < 32) {
    atomicAdd(&sum, 1);  // <- atomic_and_plain_write
  } else {
    sum = 5;  // <- atomic_and_plain_write
  }
}

PROBE(blocks_write_one_element) {
  if (threadIdx.x == 0) {
    p.as<float>(1)[0] = blockIdx.x;  // <- blocks_write_one_element
  }
}

PROBE(threads_write_one_element) {
  p.as<float>(1)[threadIdx.x / 2] = threadIdx.x;  // <- threads_write_one_element
}

PROBE(reads_what_another_block_writes) {
  float* y = p.as<float>(1);
  if (blockIdx.x == 0) {
    y[threadIdx.x] = 1.0f;  // <- reads_what_another_block_writes
  } else {
    y[blockIdx.x * blockDim.x + threadIdx.x] = y[threadIdx.x];  // <- reads_what_another_block_writes
  }
}

// A fence of the own block orders nothing between blocks.
PROBE(block_fence_between_blocks) {
  float* y = p.as<float>(1);
  if (blockIdx.x == 0) {
    y[threadIdx.x] = 1.0f;  // <- block_fence_between_blocks
  } else {
    __threadfence_block();
    y[blockIdx.x * blockDim.x + threadIdx.x] = y[threadIdx.x];  // <- block_fence_between_blocks
  }
}

PROBE(divergent_barrier) {
  if (threadIdx.x < 32) {
    __syncthreads();  // <- divergent_barrier
  } else {
    __syncthreads();  // <- divergent_barrier
  }
}

PROBE(early_exit) {
  __shared__ float tile[64];
  if (threadIdx.x == 40) return;
  tile[threadIdx.x] = 1.0f;
  __syncthreads();  // <- early_exit
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x];
}

PROBE(deadlock) {
  if (threadIdx.x < 32) {
    fastconv::ptx::barrier_sync(1, 128);  // <- deadlock
  } else {
    fastconv::ptx::barrier_sync(2, 128);  // <- deadlock
  }
}

PROBE(half_a_warp_shuffles) {
  float value = threadIdx.x;
  if (threadIdx.x % 32 < 16) {
    value = __shfl_xor_sync(kWholeWarp, value, 1);  // <- half_a_warp_shuffles
  } else {
    __syncthreads();  // <- half_a_warp_shuffles
  }
  p.as<float>(1)[threadIdx.x] = value;
}

PROBE(lane_outside_its_mask) {
  __syncwarp(0x0000ffffu);  // <- lane_outside_its_mask
}

PROBE(lanes_do_different_things) {
  if (threadIdx.x % 2 == 0) {
    __syncwarp(kWholeWarp);  // <- lanes_do_different_things
  } else {
    p.as<int>(1)[threadIdx.x] = __ballot_sync(kWholeWarp, 1);  // <- lanes_do_different_things
  }
}

PROBE(barrier_with_two_counts) {
  fastconv::ptx::barrier_sync(3, threadIdx.x < 32 ? 64 : 96);  // <- barrier_with_two_counts
}

__global__ void bounded(Arguments) {}
static const ProbeEntry entry_bounded{"bounded", bounded, 128};

// 33 KiB here and 16 KiB below: more than a kernel may declare.
PROBE(too_much_static_shared) {
  __shared__ float a[33 * 256];
  __shared__ float b[16 * 256];
  a[threadIdx.x] = b[threadIdx.x] = 1.0f;
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = a[threadIdx.x ^ 1] + b[threadIdx.x ^ 1];
}

PROBE(static_and_dynamic_shared) {
  __shared__ float tile[8 * 256];
  tile[threadIdx.x] = 1.0f;
  fastconv::ptx::dynamic_shared_memory<float>()[threadIdx.x] = 1.0f;
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x ^ 1];
}

__device__ int integer_quotient(int a, int b) {
  return a / b;
}

PROBE(divides_by_zero) {
  p.as<int>(1)[threadIdx.x] = integer_quotient(7, p.n);
}

__device__ __attribute__((noinline)) float deep(int level) {
  volatile float frame[512];
  frame[level % 512] = level;
  return level == 0 ? frame[0] : frame[level % 512] + deep(level - 1);
}

PROBE(overflows_the_stack) {
  p.as<float>(1)[threadIdx.x] = deep(p.n);
}

PROBE(shuffles_then_overflows) {
  const float value = __shfl_xor_sync(kWholeWarp, 1.0f, 1);
  p.as<float>(1)[threadIdx.x] = value + (threadIdx.x == 7 ? deep(p.n) : 0.0f);
}
