// The CUDA language for kernels, whichever compiler reads them: nvcc, or a C++ compiler for the emulator. Kernels
// include this file; what CUDA has built in keeps CUDA's names, what it has not lives in namespace fastconv::ptx.
#pragma once

#if FASTCONV_EMULATOR
#include "emulator/cuda_language.h"
#include "emulator/cuda_math.h"
#include "emulator/vector_types.h"
#else
#include <cuda_runtime.h>
#endif

#include "ptx/atomic.h"
#include "ptx/barrier.h"
#include "ptx/shared_memory.h"
#include "ptx/shuffle.h"
#include "ptx/vector.h"
#include "ptx/vote.h"
