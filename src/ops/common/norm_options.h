// What the attributes of the norm ops say, in one type.
#pragma once

namespace millrace::ops {

struct NormOptions {
  double eps = 1e-5;
  double weight_offset = 0;
  int groups = 1;
};

}  // namespace millrace::ops
