// Known access patterns, to be counted exactly. Each kernel has one instruction a pattern.
#include "probe.h"

using fastconv::ptx::load_vector;
using fastconv::ptx::store_vector;

template <class T>
__device__ void copy_one(const Arguments& p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  p.as<T>(1)[i] = p.as<const T>(0)[i];
}
PROBE(copy_bytes_1) {
  copy_one<unsigned char>(p);
}
PROBE(copy_bytes_2) {
  copy_one<unsigned short>(p);
}
PROBE(copy_bytes_4) {
  copy_one<float>(p);
}
PROBE(copy_bytes_8) {
  copy_one<double>(p);
}
PROBE(copy_vector_8) {
  const int i = 2 * (blockIdx.x * blockDim.x + threadIdx.x);
  store_vector(p.as<float>(1) + i, load_vector<2>(p.as<const float>(0) + i));
}
PROBE(copy_vector_16) {
  const int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  store_vector(p.as<float>(1) + i, load_vector<4>(p.as<const float>(0) + i));
}
PROBE(copy_vector_16_of_halves) {
  const int i = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
  store_vector(p.as<unsigned short>(1) + i, fastconv::ptx::load_vector_read_only<8>(p.as<const unsigned short>(0) + i));
}

// x[n * i]: n is the stride in elements. Only reads x; writes side by side.
PROBE(strided_load) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  p.as<float>(1)[i] = p.as<const float>(0)[p.n * i];
}
// x[i + n]
PROBE(shifted_load) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  p.as<float>(1)[i] = p.as<const float>(0)[i + p.n];
}
PROBE(broadcast_load) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  p.as<float>(1)[i] = p.as<const float>(0)[0];
}
// Every lane reads its 32 elements one after the other: each request touches 32 sectors.
PROBE(row_a_lane) {
  float sum = 0.0f;
  for (int i = 0; i < 32; ++i) sum += p.as<const float>(0)[32 * threadIdx.x + i];
  p.as<float>(1)[threadIdx.x] = sum;
}
// Lanes skip different executions, and line up again at the warp barrier.
PROBE(predicated_then_aligned) {
  float sum = 0.0f;
  for (int i = 0; i < 2; ++i) {
    if (threadIdx.x % 2 == static_cast<unsigned>(i)) sum += p.as<const float>(0)[64 * i + threadIdx.x];
    __syncwarp();
  }
  p.as<float>(1)[threadIdx.x] = sum;
}

// tile[n * lane % 1024]: an n-way conflict for a power of two up to 32.
PROBE(shared_stride) {
  __shared__ float tile[1024];
  for (int i = threadIdx.x; i < 1024; i += blockDim.x) tile[i] = i;
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[p.n * threadIdx.x % 1024];
}
PROBE(shared_broadcast) {
  __shared__ float tile[32];
  tile[threadIdx.x % 32] = 1.0f;
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x / 16];
}
PROBE(shared_vectors_8) {
  __shared__ __align__(16) float tile[1024];
  for (int i = threadIdx.x; i < 1024; i += blockDim.x) tile[i] = i;
  __syncthreads();
  const auto pair = load_vector<2>(tile + 2 * (p.n * threadIdx.x % 512));
  p.as<float>(1)[threadIdx.x] = pair[0] + pair[1];
}
PROBE(shared_vectors_16) {
  __shared__ __align__(16) float tile[2048];
  for (int i = threadIdx.x; i < 2048; i += blockDim.x) tile[i] = i;
  __syncthreads();
  const auto four = load_vector<4>(tile + 4 * (p.n * threadIdx.x % 512));
  p.as<float>(1)[threadIdx.x] = four[0] + four[3];
}
// A column of a 32 x 33 tile: padded, so free of conflicts; of a 32 x 32 tile: 32-way.
PROBE(padded_column) {
  __shared__ float tile[32][33];
  for (int row = 0; row < 32; ++row) tile[row][threadIdx.x] = row;
  __syncthreads();
  p.as<float>(1)[threadIdx.x] = tile[threadIdx.x][5];
}
PROBE(bytes_of_a_word) {
  __shared__ unsigned char tile[128];
  tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  p.as<unsigned char>(1)[threadIdx.x] = tile[threadIdx.x ^ 3];
}
PROBE(counts_operations) {
  __syncthreads();
  __syncwarp();
  __shfl_sync(0xffffffffu, 1.0f, 0);
  for (int i = 0; i < 3; ++i) __syncthreads();
  atomicAdd(p.as<float>(1), 1.0f);
}
