// A kernel that the tests can call by its name, on any memory.
#pragma once

#include "ptx/device.h"

struct Arguments {
  void* pointers[4];
  int n;

  template <class T>
  __device__ T* as(int i) const {
    return static_cast<T*>(pointers[i]);
  }
};

using Probe = void (*)(Arguments);

// Makes the kernel known to the module. max_threads is its launch bound.
struct ProbeEntry {
  ProbeEntry(const char* name, Probe kernel, int max_threads = 1024);
};

#define PROBE(name)                                  \
  __global__ void name(const Arguments p);           \
  static const ProbeEntry entry_##name{#name, name}; \
  __global__ void name(const Arguments p)
