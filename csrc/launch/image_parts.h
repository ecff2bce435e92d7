// A batch in parts of whole images, one after another in the same workspace.
#pragma once

#include <array>
#include <vector>

#include "launch/registry.h"

namespace fastconv::mma {

// Launch: one part made ready, called with LaunchArguments; it tells its workspace_bytes() and its packing(), whose
// weights it packs to the beginning of the workspace.
template <class Launch>
class ImageParts {
 public:
  // images: in all. at_once: in a part, the last one may have fewer. image_bytes: from an image to the next, of each
  // pointer that has images. launch_for(images) -> Launch.
  template <class LaunchFor>
  ImageParts(int64_t images, int64_t at_once, const std::array<int64_t, 5>& image_bytes, const LaunchFor& launch_for)
      : images_(images), at_once_(at_once), image_bytes_(image_bytes) {
    launches_.push_back(launch_for(at_once));
    if (images % at_once > 0) launches_.push_back(launch_for(images % at_once));
  }

  // The first part is the largest.
  const Launch& first() const { return launches_[0]; }
  int64_t count() const { return (images_ + at_once_ - 1) / at_once_; }

  void operator()(LaunchArguments arguments) const {
    for (int64_t image = 0; image < images_; image += at_once_) {
      launches_[images_ - image < at_once_ ? 1 : 0](arguments);
      // The weights stay packed at the beginning of the workspace.
      if (arguments.packed_weights == nullptr && first().packing().bytes > 0) {
        arguments.packed_weights = arguments.workspace;
      }
      for (size_t i = 0; i < image_bytes_.size(); ++i) {
        void*& pointer = arguments.pointers[i];
        if (pointer != nullptr) pointer = static_cast<unsigned char*>(pointer) + at_once_ * image_bytes_[i];
      }
    }
  }

 private:
  const int64_t images_, at_once_;
  const std::array<int64_t, 5> image_bytes_;
  std::vector<Launch> launches_;  // one, or the repeated one and the last
};

}  // namespace fastconv::mma
