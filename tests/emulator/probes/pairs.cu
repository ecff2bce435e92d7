// Pairs of 16-bit numbers (ptx/pairs.h), a thread each. n: pairs.
#include "probe.h"
#include "ptx/pairs.h"

using fastconv::BFloat16;
using fastconv::Half;

// x [n, 2] float32; y [n, 2].
template <class T>
__device__ void convert_pairs(const Arguments& p) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= p.n) return;
  const float* x = p.as<const float>(0) + 2 * i;
  fastconv::ptx::store_vector(p.as<T>(1) + 2 * i, fastconv::ptx::to_pair<T>(x[0], x[1]));
}
PROBE(pairs_converted_float16) {
  convert_pairs<Half>(p);
}
PROBE(pairs_converted_bfloat16) {
  convert_pairs<BFloat16>(p);
}

// pointers[0] and pointers[2]: [n, 2] each; y [n, 2].
template <class T>
__device__ void maxima_of_pairs(const Arguments& p) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= p.n) return;
  const auto a = fastconv::ptx::load_vector<2>(p.as<const T>(0) + 2 * i);
  const auto b = fastconv::ptx::load_vector<2>(p.as<const T>(2) + 2 * i);
  fastconv::ptx::store_vector(p.as<T>(1) + 2 * i, fastconv::ptx::maximum_of_pairs<T>(a, b));
}
PROBE(pairs_maximum_float16) {
  maxima_of_pairs<Half>(p);
}
PROBE(pairs_maximum_bfloat16) {
  maxima_of_pairs<BFloat16>(p);
}
