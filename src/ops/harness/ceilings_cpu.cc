#include "ops/harness/ceiling_kernels.h"

namespace millrace::ops {
namespace {

/// The interface of vectors (ops/common/vec_avx2.h), as far as it is used here.
struct Scalar {
  static constexpr int64_t kWidth = 4;  // the compiler's own vectors are at least this wide
  float v[4];

  static Scalar set(float x) { return {{x, x, x, x}}; }
  static Scalar zero() { return set(0); }
  static Scalar load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  friend Scalar operator+(Scalar a, Scalar b) {
    for (int i = 0; i < 4; ++i)
      a.v[i] += b.v[i];
    return a;
  }
  friend Scalar fma(Scalar a, Scalar b, Scalar c) {
    for (int i = 0; i < 4; ++i)
      a.v[i] = a.v[i] * b.v[i] + c.v[i];
    return a;
  }
  friend float sum(Scalar a) { return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]); }
};

}  // namespace

CeilingKernels ceiling_kernels_cpu() {
  return make_ceiling_kernels<Scalar>();
}

}  // namespace millrace::ops
