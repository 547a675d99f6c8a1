// Elementary functions on vectors of floats (V: ops/common/vec_avx2.h, vec_avx512.h). Largest
// errors against double, over every 61st float: vec_exp 0.996 units in the last place (0.74 x
// 2^-149 where results are subnormal), vec_tanh 1.5e-7 of the result, the activations 1.2e-7 |x| (a
// unit in the last place of x, as the scalar definitions have); held by
// ops/activation/activation_test.cc. Polynomials: least-maximum fits made for this file (Lawson's
// algorithm on Chebyshev points).
#pragma once

#include <cstdint>

#include "ops/common/activation_kind.h"

namespace millrace::ops {

/// Work of one element, in those of a sum: for dividing rows among threads.
inline constexpr int64_t kCostOfAnExponential = 4;

/// e^x = 2^n e^r with |r| <= ln(2)/2. Infinity above 88.73, zero below -103.98, NaN stays NaN.
template <typename V>
V vec_exp(V x) {
  x = min(V::set(89), max(V::set(-104), x));  // in this order NaN gets through
  const V n = round(x * V::set(1.44269504F));
  const V r = fnma(n, V::set(-1.90465430e-9F), fnma(n, V::set(0.693147182F), x));
  // (e^r - 1 - r) / r^2, to 3e-9 of e^r
  V q = V::set(0.00138145988F);
  q = fma(q, r, V::set(0.00836871658F));
  q = fma(q, r, V::set(0.041668389F));
  q = fma(q, r, V::set(0.166665211F));
  q = fma(q, r, V::set(0.49999994F));
  return scale_by_power_of_two(fma(q, r * r, r) + V::set(1), n);
}

/// x / (1 + e^-x).
template <typename V>
V vec_silu(V x) {
  return x / (V::set(1) + vec_exp(V::zero() - x));
}

/// 1 + erf(t), for t < 0 without cancellation.
template <typename V>
V vec_one_plus_erf(V t) {
  const V size = abs(t);
  // Up to 1: erf(t) / t as a polynomial of t^2, to 2e-9.
  const V s = t * t;
  V p = V::set(7.88912294e-05F);
  p = fma(p, s, V::set(-0.000802084222F));
  p = fma(p, s, V::set(0.00518953567F));
  p = fma(p, s, V::set(-0.0268544443F));
  p = fma(p, s, V::set(0.112836003F));
  p = fma(p, s, V::set(-0.37612626F));
  p = fma(p, s, V::set(1.12837911F));
  const V small = fma(p, t, V::set(1));
  // Up to 4: log(1 - erf(|t|)) as a polynomial, erf to 2e-9; beyond, erf rounds to 1.
  V q = V::set(0.000185574128F);
  q = fma(q, size, V::set(-0.00293960841F));
  q = fma(q, size, V::set(0.0218053237F));
  q = fma(q, size, V::set(-0.10303738F));
  q = fma(q, size, V::set(-0.638225675F));
  q = fma(q, size, V::set(-1.12704003F));
  q = fma(q, size, V::set(-0.000353718002F));
  const V rest = select_less(size, V::set(4), vec_exp(q), V::zero());
  const V large = select_less(t, V::zero(), rest, V::set(2) - rest);
  return select_less(size, V::set(1), small, large);
}

/// tanh(u).
template <typename V>
V vec_tanh(V u) {
  const V size = abs(u);
  // Up to 0.625: (tanh(u) / u - 1) / u^2 as a polynomial of u^2, tanh to 5e-9.
  const V s = u * u;
  V p = V::set(-0.00570498733F);
  p = fma(p, s, V::set(0.020639088F));
  p = fma(p, s, V::set(-0.0537397154F));
  p = fma(p, s, V::set(0.133314416F));
  p = fma(p, s, V::set(-0.333332807F));
  const V small = fma(p * s, u, u);
  const V large = V::set(1) - V::set(2) / (V::set(1) + vec_exp(size + size));
  return select_less(size, V::set(0.625F), small, copysign(large, u));
}

template <ActivationKind kKind, typename V>
V vec_activation(V x) {
  if constexpr (kKind == ActivationKind::kSilu) {
    return vec_silu(x);
  } else if constexpr (kKind == ActivationKind::kGelu) {
    return V::set(0.5F) * x * vec_one_plus_erf(x * V::set(0.707106781F));
  } else if constexpr (kKind == ActivationKind::kGeluTanh) {
    // 1 + tanh(u) = 2 / (1 + e^-2u)
    const V u = V::set(0.797884561F) * fma(V::set(0.044715F) * x * x, x, x);
    return x / (V::set(1) + vec_exp(V::set(-2) * u));
  } else if constexpr (kKind == ActivationKind::kRelu) {
    return max(x, V::zero());
  } else if constexpr (kKind == ActivationKind::kRelu2) {
    const V positive = max(x, V::zero());
    return positive * positive;
  } else if constexpr (kKind == ActivationKind::kQuickGelu) {
    return x / (V::set(1) + vec_exp(V::set(-1.702F) * x));
  } else {
    return x;
  }
}

template <ActivationKind kKind>
struct ActivationTag {};

/// Calls `function(ActivationTag<kind>{})`.
template <typename F>
void with_activation(ActivationKind kind, F&& function) {
  switch (kind) {
    case ActivationKind::kNone:
      return function(ActivationTag<ActivationKind::kNone>{});
    case ActivationKind::kSilu:
      return function(ActivationTag<ActivationKind::kSilu>{});
    case ActivationKind::kGelu:
      return function(ActivationTag<ActivationKind::kGelu>{});
    case ActivationKind::kGeluTanh:
      return function(ActivationTag<ActivationKind::kGeluTanh>{});
    case ActivationKind::kRelu:
      return function(ActivationTag<ActivationKind::kRelu>{});
    case ActivationKind::kRelu2:
      return function(ActivationTag<ActivationKind::kRelu2>{});
    case ActivationKind::kQuickGelu:
      return function(ActivationTag<ActivationKind::kQuickGelu>{});
  }
}

}  // namespace millrace::ops
