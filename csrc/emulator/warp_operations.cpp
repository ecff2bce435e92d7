// The meaning of shuffles, votes, matches and reductions for a whole warp.
#include <algorithm>

#include "emulator/thread.h"
#include "ptx/device.h"

namespace fastconv::emulator {
namespace {

template <class Visit>
void for_each_lane(uint32_t lanes, const Visit& visit) {
  for (; lanes != 0; lanes &= lanes - 1) visit(__builtin_ctz(lanes));
}

VoteLane& vote_of(void* const* deposits, int lane) {
  return *static_cast<VoteLane*>(deposits[lane]);
}

void give_all(void* const* deposits, uint32_t arrived, uint64_t result) {
  for_each_lane(arrived, [&](int lane) { vote_of(deposits, lane).result = result; });
}

// A lane outside the mask has no defined value; the reader keeps its own.
void shuffle(void* const* deposits, uint32_t arrived) {
  for_each_lane(arrived, [&](int lane) {
    ShuffleLane& own = *static_cast<ShuffleLane*>(deposits[lane]);
    const bool present = (arrived >> own.source) & 1;
    own.result = present ? static_cast<ShuffleLane*>(deposits[own.source])->value : own.value;
  });
}

void ballot(void* const* deposits, uint32_t arrived) {
  uint64_t votes = 0;
  for_each_lane(arrived, [&](int lane) { votes |= vote_of(deposits, lane).value << lane; });
  give_all(deposits, arrived, static_cast<uint64_t>(arrived) << 32 | votes);
}

void match_any(void* const* deposits, uint32_t arrived) {
  for_each_lane(arrived, [&](int lane) {
    uint64_t equal = 0;
    for_each_lane(arrived, [&](int other) {
      if (vote_of(deposits, other).value == vote_of(deposits, lane).value) equal |= uint64_t{1} << other;
    });
    vote_of(deposits, lane).result = equal;
  });
}

// Type is that of the values: int32_t or uint32_t.
template <class Type, class Combine>
void reduce(void* const* deposits, uint32_t arrived, const Combine& combine) {
  Type result = static_cast<Type>(vote_of(deposits, __builtin_ctz(arrived)).value);
  for_each_lane(arrived & (arrived - 1),
                [&](int lane) { result = combine(result, static_cast<Type>(vote_of(deposits, lane).value)); });
  give_all(deposits, arrived, static_cast<uint32_t>(result));
}

template <class Type>
Type smaller(Type a, Type b) {
  return std::min(a, b);
}
template <class Type>
Type larger(Type a, Type b) {
  return std::max(a, b);
}

}  // namespace

const WarpOperation kShuffle{"shuffle", shuffle};
const WarpOperation kBallot{"vote", ballot};
const WarpOperation kMatchAny{"match", match_any};
const WarpOperation kReduceAdd{"__reduce_add_sync", [](void* const* deposits, uint32_t arrived) {
                                 reduce<uint32_t>(deposits, arrived, [](uint32_t a, uint32_t b) { return a + b; });
                               }};
const WarpOperation kReduceAnd{"__reduce_and_sync", [](void* const* deposits, uint32_t arrived) {
                                 reduce<uint32_t>(deposits, arrived, [](uint32_t a, uint32_t b) { return a & b; });
                               }};
const WarpOperation kReduceOr{"__reduce_or_sync", [](void* const* deposits, uint32_t arrived) {
                                reduce<uint32_t>(deposits, arrived, [](uint32_t a, uint32_t b) { return a | b; });
                              }};
const WarpOperation kReduceXor{"__reduce_xor_sync", [](void* const* deposits, uint32_t arrived) {
                                 reduce<uint32_t>(deposits, arrived, [](uint32_t a, uint32_t b) { return a ^ b; });
                               }};
const WarpOperation kReduceMinSigned{"__reduce_min_sync", [](void* const* deposits, uint32_t arrived) {
                                       reduce<int32_t>(deposits, arrived, smaller<int32_t>);
                                     }};
const WarpOperation kReduceMaxSigned{"__reduce_max_sync", [](void* const* deposits, uint32_t arrived) {
                                       reduce<int32_t>(deposits, arrived, larger<int32_t>);
                                     }};
const WarpOperation kReduceMinUnsigned{"__reduce_min_sync", [](void* const* deposits, uint32_t arrived) {
                                         reduce<uint32_t>(deposits, arrived, smaller<uint32_t>);
                                       }};
const WarpOperation kReduceMaxUnsigned{"__reduce_max_sync", [](void* const* deposits, uint32_t arrived) {
                                         reduce<uint32_t>(deposits, arrived, larger<uint32_t>);
                                       }};

}  // namespace fastconv::emulator
