// The kernels of one number type, for the files depthwise_<type>.cu.
#pragma once

#include <iterator>
#include <utility>

#include "launch/depthwise_kernels.h"
#include "launch/depthwise_wgrad.h"

namespace fastconv::depthwise {

template <typename T, size_t... filters>
PlanesKernel planes_kernel_among(int filter, std::index_sequence<filters...>) {
  static constexpr PlanesKernel kernels[] = {
      planes_kernel<T, PlaneFilter<kPlaneFilters[filters].rows, kPlaneFilters[filters].columns,
                                   kPlaneFilters[filters].stride, kPlaneFilters[filters].transposed>>...};
  return kernels[filter];
}

template <typename T>
PlanesKernel planes_kernel_of(int filter) {
  return planes_kernel_among<T>(filter, std::make_index_sequence<kPlaneFilterCount>());
}

template <typename T>
BandKernel band_kernel_of(int band) {
  static_assert(kLargestBand == 6, "one entry a band");
  static constexpr BandKernel kernels[] = {band_kernel<T, 3>, band_kernel<T, 4>, band_kernel<T, 5>, band_kernel<T, 6>};
  return kernels[band - 3];
}

template <typename T, size_t... tiles>
BandWgradKernel band_wgrad_kernel_among(int chosen, std::index_sequence<tiles...>) {
  static constexpr BandWgradKernel kernels[] = {
      band_wgrad_kernel<T, kBandWgradTiles[tiles].rows, kBandWgradTiles[tiles].columns>...};
  return kernels[chosen];
}

template <typename T>
BandWgradKernel band_wgrad_kernel_of(int tiles) {
  return band_wgrad_kernel_among<T>(tiles, std::make_index_sequence<std::size(kBandWgradTiles)>());
}

template <typename T>
ChannelsLastKernel channels_last_kernel_of(int taps) {
  switch (taps) {
    case 3:
      return channels_last_kernel<T, 3>;
    case 5:
      return channels_last_kernel<T, 5>;
    case 7:
      return channels_last_kernel<T, 7>;
    default:
      return channels_last_kernel<T, 0>;
  }
}

template <typename T, size_t... filters>
PlanesWgradKernel planes_wgrad_kernel_among(int filter, std::index_sequence<filters...>) {
  static constexpr PlanesWgradKernel kernels[] = {planes_wgrad_kernel<
      T, PlaneFilter<kWgradFilters[filters].rows, kWgradFilters[filters].columns, kWgradFilters[filters].stride>>...};
  return kernels[filter];
}

template <typename T>
PlanesWgradKernel planes_wgrad_kernel_of(int filter) {
  return planes_wgrad_kernel_among<T>(filter, std::make_index_sequence<kWgradFilterCount>());
}

template <typename T>
ChannelsLastWgradKernel channels_last_wgrad_kernel_of(int taps) {
  switch (taps) {
    case 3:
      return channels_last_wgrad_kernel<T, 3>;
    case 5:
      return channels_last_wgrad_kernel<T, 5>;
    case 7:
      return channels_last_wgrad_kernel<T, 7>;
    default:
      return channels_last_wgrad_kernel<T, 0>;
  }
}

}  // namespace fastconv::depthwise

#define FASTCONV_DEPTHWISE_INSTANCES(T)                                                                  \
  template fastconv::depthwise::PlanesKernel fastconv::depthwise::planes_kernel_of<T>(int);              \
  template fastconv::depthwise::ChannelsLastKernel fastconv::depthwise::channels_last_kernel_of<T>(int); \
  template fastconv::depthwise::PlanesWgradKernel fastconv::depthwise::planes_wgrad_kernel_of<T>(int);   \
  template fastconv::depthwise::ChannelsLastWgradKernel fastconv::depthwise::channels_last_wgrad_kernel_of<T>(int);

#define FASTCONV_DEPTHWISE_BAND_INSTANCES(T)                                            \
  template fastconv::depthwise::BandKernel fastconv::depthwise::band_kernel_of<T>(int); \
  template fastconv::depthwise::BandWgradKernel fastconv::depthwise::band_wgrad_kernel_of<T>(int);
