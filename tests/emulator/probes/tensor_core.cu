// ldmatrix, mma and cp.async, each on data that shows where every element goes.
#include "probe.h"
#include "ptx/cp_async.h"
#include "ptx/ldmatrix.h"
#include "ptx/mma.h"

using namespace fastconv;

// x: count matrices of 8 rows of 16 bytes, one after the other -> y [32 lanes][count registers]
template <int count, bool transposed>
__device__ void load_and_show(const Arguments& p) {
  __shared__ __align__(16) uint32_t tile[count * 8 * 4];
  for (int i = threadIdx.x; i < count * 8 * 4; i += 32) tile[i] = p.as<const uint32_t>(0)[i];
  __syncthreads();
  uint32_t registers[count];
  ptx::load_matrices<count, transposed>(registers, tile + threadIdx.x % (8 * count) * 4);
  for (int j = 0; j < count; ++j) p.as<uint32_t>(1)[threadIdx.x * count + j] = registers[j];
}
PROBE(ldmatrix_x1) {
  load_and_show<1, false>(p);
}
PROBE(ldmatrix_x2) {
  load_and_show<2, false>(p);
}
PROBE(ldmatrix_x4) {
  load_and_show<4, false>(p);
}
PROBE(ldmatrix_x1_trans) {
  load_and_show<1, true>(p);
}
PROBE(ldmatrix_x2_trans) {
  load_and_show<2, true>(p);
}
PROBE(ldmatrix_x4_trans) {
  load_and_show<4, true>(p);
}

// x: the lanes' registers of A [rows][4], B [columns][2] and, as float, D [rows][columns][4] -> y: D of every lane.
template <class Element, int rows, int columns>
__device__ void multiply_and_show(const Arguments& p) {
  constexpr int kInputs = 4 * rows + 2 * columns, kSums = 4 * rows * columns;
  const uint32_t* x = p.as<const uint32_t>(0) + threadIdx.x * (kInputs + kSums);
  uint32_t a[rows][4], b[columns][2];
  float d[rows][columns][4];
  for (int i = 0; i < 4 * rows; ++i) a[i / 4][i % 4] = x[i];
  for (int i = 0; i < 2 * columns; ++i) b[i / 2][i % 2] = x[4 * rows + i];
  for (int i = 0; i < kSums; ++i) d[i / 4 / columns][i / 4 % columns][i % 4] = __uint_as_float(x[kInputs + i]);
  ptx::multiply_add<Element>(d, a, b);
  for (int i = 0; i < kSums; ++i) p.as<float>(1)[threadIdx.x * kSums + i] = d[i / 4 / columns][i / 4 % columns][i % 4];
}
PROBE(mma_float16) {
  multiply_and_show<Half, 1, 1>(p);
}
PROBE(mma_bfloat16) {
  multiply_and_show<BFloat16, 1, 1>(p);
}
PROBE(mma_tf32) {
  multiply_and_show<ptx::Tf32, 1, 1>(p);
}
PROBE(mma_float16_grid) {
  multiply_and_show<Half, 2, 3>(p);
}
PROBE(mma_tf32_grid) {
  multiply_and_show<ptx::Tf32, 2, 3>(p);
}
PROBE(round_to_tf32) {
  p.as<uint32_t>(1)[threadIdx.x] = ptx::round_to_tf32(p.as<const uint32_t>(0)[threadIdx.x]);
}

// Each thread copies `bytes`, of which n exist.
template <int bytes>
__device__ void copy_part(const Arguments& p) {
  unsigned char* tile = ptx::dynamic_shared_memory<unsigned char>();
  ptx::copy_async<bytes>(tile + bytes * threadIdx.x, p.as<const unsigned char>(0) + bytes * threadIdx.x, p.n);
  ptx::commit_async_copies();
  ptx::wait_async_copies<0>();
  for (int i = 0; i < bytes; ++i) p.as<unsigned char>(1)[bytes * threadIdx.x + i] = tile[bytes * threadIdx.x + i];
}
PROBE(cp_async_4) {
  copy_part<4>(p);
}
PROBE(cp_async_8) {
  copy_part<8>(p);
}
PROBE(cp_async_16) {
  copy_part<16>(p);
}

// Three groups under way; what is read after wait_group 1 is of the first two. 64 threads, each reads its neighbour's.
template <int pending, bool waits_for_others>
__device__ void read_after_waiting(const Arguments& p, int groups_read) {
  float* tile = ptx::dynamic_shared_memory<float>();  // [3][64][4]
  const int t = threadIdx.x, other = (t + 33) % 64;
  for (int group = 0; group < 3; ++group) {
    ptx::copy_async<16>(tile + (group * 64 + t) * 4, p.as<const float>(0) + (group * 64 + t) * 4, 16);
    ptx::commit_async_copies();
  }
  ptx::wait_async_copies<pending>();
  if (waits_for_others) __syncthreads();
  for (int group = 0; group < groups_read; ++group) {
    p.as<float>(1)[group * 64 + t] = tile[(group * 64 + other) * 4];  // <- cp_async
  }
  ptx::wait_async_copies<0>();
}
PROBE(cp_async_groups) {
  read_after_waiting<1, true>(p, 2);
}
PROBE(cp_async_missing_wait) {
  read_after_waiting<1, true>(p, 3);
}
PROBE(cp_async_missing_barrier) {
  read_after_waiting<0, false>(p, 3);
}
// The second copy overwrites what a neighbour may still read.
PROBE(cp_async_overwrites_too_early) {
  float* tile = ptx::dynamic_shared_memory<float>();
  const int t = threadIdx.x;
  for (int round = 0; round < 2; ++round) {
    ptx::copy_async<16>(tile + 4 * t, p.as<const float>(0) + (round * 64 + t) * 4, 16);
    ptx::commit_async_copies();
    ptx::wait_async_copies<0>();
    __syncthreads();
    p.as<float>(1)[round * 64 + t] = tile[4 * ((t + 33) % 64)];  // <- cp_async
  }
}
