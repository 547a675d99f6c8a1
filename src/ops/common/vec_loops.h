// Loops over the elements of a row by vectors (V: ops/common/vec_avx2.h, vec_avx512.h), which
// neither read nor write behind its end.
#pragma once

#include <cstdint>

namespace millrace::ops {

/// Which lanes of a vector hold elements.
struct AllLanes {};
struct FirstLanes {
  int64_t count;
};

template <typename V, typename T>
V load(const T* p, AllLanes) {
  return V::load(p);
}
template <typename V, typename T>
V load(const T* p, FirstLanes lanes) {
  return V::load(p, lanes.count);
}
template <typename V, typename T>
void store(V value, T* p, AllLanes) {
  value.store(p);
}
template <typename V, typename T>
void store(V value, T* p, FirstLanes lanes) {
  value.store(p, lanes.count);
}

/// Calls body(i, lanes) for each vector of the elements [0, width): i is its first element, lanes
/// is AllLanes or, at the end, FirstLanes.
template <typename V, typename Body>
void for_vectors(int64_t width, const Body& body) {
  int64_t i = 0;
  for (; i + V::kWidth <= width; i += V::kWidth)
    body(i, AllLanes{});
  if (i < width) body(i, FirstLanes{width - i});
}

/// Sum over the elements of a row of term(V of elements), in a fixed order. Four accumulators
/// hide the latency of additions, and keep the error near that of a pairwise sum.
template <typename V, typename T, typename Term>
float sum_row(const T* x, int64_t width, const Term& term) {
  constexpr int64_t kStep = V::kWidth;
  V s0 = V::zero(), s1 = V::zero(), s2 = V::zero(), s3 = V::zero();
  int64_t i = 0;
  for (; i + 4 * kStep <= width; i += 4 * kStep) {
    s0 = s0 + term(V::load(x + i));
    s1 = s1 + term(V::load(x + i + kStep));
    s2 = s2 + term(V::load(x + i + 2 * kStep));
    s3 = s3 + term(V::load(x + i + 3 * kStep));
  }
  for (; i + kStep <= width; i += kStep)
    s0 = s0 + term(V::load(x + i));
  if (i < width) s1 = s1 + first(term(V::load(x + i, width - i)), width - i);
  return sum((s0 + s1) + (s2 + s3));
}

}  // namespace millrace::ops
