// The arithmetic of rescale on one number: float in the reference and on a GPU, double to check
// them.
#pragma once

#include <cmath>

#include "base/host_device.h"
#include "ops/rescale/rescale.h"

namespace millrace::ops {

/// The attributes in the type of the arithmetic. Infinite bounds cut nothing.
template <typename F>
struct RescaleSteps {
  F factor, softcap, low, high;

  explicit RescaleSteps(const Rescale& attrs)
      : factor(static_cast<F>(attrs.factor)),
        softcap(static_cast<F>(attrs.softcap)),
        low(static_cast<F>(attrs.low)),
        high(static_cast<F>(attrs.high)) {}

  MILLRACE_HD F operator()(F x) const {
    F y = factor * x;
    if (softcap > 0) y = softcap * std::tanh(y / softcap);
    if (y < low) y = low;
    return y > high ? high : y;
  }
};

}  // namespace millrace::ops
