#include "emulator/launch_recorder.h"

#include "emulator/module_symbols.h"

namespace fastconv::emulator {
namespace {

thread_local LaunchRecorder* innermost = nullptr;

}  // namespace

LaunchRecorder::LaunchRecorder() : outer_(innermost) {
  innermost = this;
}

LaunchRecorder::~LaunchRecorder() {
  innermost = outer_;
}

LaunchRecorder* LaunchRecorder::current() {
  return innermost;
}

void LaunchRecorder::note(const LaunchRequest& request) {
  launches_.push_back({request.kernel, symbol_of(request.function), request.grid, request.block,
                       request.dynamic_shared_bytes + static_shared_bytes(request.function)});
}

}  // namespace fastconv::emulator
