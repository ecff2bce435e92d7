// Every lane's result of every warp operation. y is [cases, 32].
#include "probe.h"

// x [32] values, [32] arguments; n: mask in pointers[2][0], width in n.
template <class T>
__device__ void shuffles(const Arguments& p) {
  const int lane = threadIdx.x;
  const unsigned mask = p.as<const unsigned>(2)[lane];
  const T value = p.as<const T>(0)[lane];
  const int argument = p.as<const int>(3)[lane];
  T* y = p.as<T>(1);
  y[lane] = __shfl_sync(mask, value, argument, p.n);
  y[32 + lane] = __shfl_up_sync(mask, value, argument, p.n);
  y[64 + lane] = __shfl_down_sync(mask, value, argument, p.n);
  y[96 + lane] = __shfl_xor_sync(mask, value, argument, p.n);
}
PROBE(shuffles_int32) {
  shuffles<int>(p);
}
PROBE(shuffles_float32) {
  shuffles<float>(p);
}
PROBE(shuffles_int64) {
  shuffles<long long>(p);
}
PROBE(shuffles_float64) {
  shuffles<double>(p);
}

PROBE(votes) {
  const int lane = threadIdx.x;
  const unsigned mask = p.as<const unsigned>(2)[lane];
  const int value = p.as<const int>(0)[lane];
  unsigned* y = p.as<unsigned>(1);
  int all_equal = -1;
  y[lane] = __ballot_sync(mask, value > 0);
  y[32 + lane] = __any_sync(mask, value > 0);
  y[64 + lane] = __all_sync(mask, value > 0);
  y[96 + lane] = __match_any_sync(mask, value);
  y[128 + lane] = __match_all_sync(mask, value, &all_equal);
  y[160 + lane] = all_equal;
  y[192 + lane] = __reduce_add_sync(mask, value);
  y[224 + lane] = __reduce_min_sync(mask, value);
  y[256 + lane] = __reduce_max_sync(mask, value);
  y[288 + lane] = __reduce_min_sync(mask, static_cast<unsigned>(value));
  y[320 + lane] = __reduce_max_sync(mask, static_cast<unsigned>(value));
  y[352 + lane] = __reduce_and_sync(mask, static_cast<unsigned>(value));
  y[384 + lane] = __reduce_or_sync(mask, static_cast<unsigned>(value));
  y[416 + lane] = __reduce_xor_sync(mask, static_cast<unsigned>(value));
}

// x [n], y [12]: every atomic operation by every thread of every block, on integers, so the order does not matter.
PROBE(atomics) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int value = p.as<const int>(0)[i];
  int* y = p.as<int>(1);
  atomicAdd(y, value);
  atomicSub(y + 1, value);
  atomicMin(y + 2, value);
  atomicMax(y + 3, value);
  atomicAnd(y + 4, value);
  atomicOr(y + 5, value);
  atomicXor(y + 6, value);
  atomicInc(reinterpret_cast<unsigned*>(y + 7), 99);
  atomicDec(reinterpret_cast<unsigned*>(y + 8), 99);
  for (int seen = y[9];;) {
    const int before = atomicCAS(y + 9, seen, seen + 1);
    if (before == seen) break;
    seen = before;
  }
  atomicAdd(reinterpret_cast<float*>(y + 10), 0.5f);
  atomicExch(y + 11, 7);
  atomicAdd(reinterpret_cast<double*>(y + 12), 0.25);
  atomicAdd(reinterpret_cast<unsigned long long*>(y + 14), 1ull << 33);
}

// threadIdx, blockIdx and the sizes of both, of every thread. y [blocks, threads, 12].
PROBE(coordinates) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int* y = p.as<int>(1) + 12 * (block * static_cast<int>(blockDim.x * blockDim.y * blockDim.z) + thread);
  const unsigned values[12] = {threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z,
                               blockDim.x,  blockDim.y,  blockDim.z,  gridDim.x,  gridDim.y,  gridDim.z};
  for (int i = 0; i < 12; ++i) y[i] = values[i];
}

// y [3, threads]: how many predicates are true, whether any is, whether all are.
PROBE(counting_barriers) {
  const int t = threadIdx.x, predicate = p.as<const int>(0)[t];
  int* y = p.as<int>(1);
  y[t] = __syncthreads_count(predicate);
  y[blockDim.x + t] = __syncthreads_or(predicate);
  y[2 * blockDim.x + t] = __syncthreads_and(predicate);
}

PROBE(many_barriers) {
  for (int i = 0; i < p.n; ++i) __syncthreads();
}

PROBE(many_shuffles) {
  float value = threadIdx.x;
  for (int i = 0; i < p.n; ++i) value += __shfl_xor_sync(0xffffffffu, value, 1);
  p.as<float>(1)[threadIdx.x] = value;
}

// Threads poll for what thread 0 of the last warp writes.
PROBE(polls) {
  volatile int* flag = p.as<int>(1);
  if (threadIdx.x == blockDim.x - 1) {
    *flag = 1;
  } else {
    while (*flag == 0) __nanosleep(20);
  }
  __syncthreads();
  if (threadIdx.x == 0) *flag = 2;
}
