#include "launch/launch.h"

#include <stdexcept>

#if !FASTCONV_EMULATOR

namespace fastconv {
namespace {

constexpr int64_t kSharedBytesWithoutAsking = 48 * 1024;

void check(cudaError_t error, const LaunchShape& shape, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that is thrown must not be found again by the next caller
  throw std::runtime_error("kernel " + std::string(shape.kernel) + " (" + std::to_string(shape.blocks) + " blocks of " +
                           std::to_string(shape.threads) + " threads, " + std::to_string(shape.shared_bytes) +
                           " bytes of shared memory): " + call + ": " + cudaGetErrorName(error) + ": " +
                           cudaGetErrorString(error));
}

// Makes a device current and puts the previous one back.
class DeviceGuard {
 public:
  DeviceGuard(int device, const LaunchShape& shape) : device_(device) {
    check(cudaGetDevice(&previous_), shape, "cudaGetDevice");
    check(cudaSetDevice(device), shape, "cudaSetDevice");
  }
  ~DeviceGuard() {
    if (previous_ != device_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int device_;
  int previous_ = 0;
};

}  // namespace

void launch_on_device(const LaunchShape& shape, const void* kernel, void* parameters, const Stream& stream) {
  DeviceGuard guard(stream.device, shape);
  if (shape.shared_bytes > kSharedBytesWithoutAsking) {
    check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
        shape, "cudaFuncSetAttribute");
  }
  void* arguments[] = {parameters};
  check(cudaLaunchKernel(kernel, dim3(shape.blocks), dim3(shape.threads), arguments, shape.shared_bytes,
                         reinterpret_cast<cudaStream_t>(stream.handle)),
        shape, "cudaLaunchKernel");
}

}  // namespace fastconv

#endif
