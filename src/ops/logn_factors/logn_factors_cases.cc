#include "ops/harness/cases.h"
#include "ops/logn_factors/logn_factors.h"

namespace millrace::ops {
namespace {

Case make(std::string name, int length, int64_t rows) {
  return {.name = std::move(name),
          .attrs = to_attrs(LognFactors{.length = length}),
          .inputs = {ids({rows}, 32768)}};
}

}  // namespace

std::vector<Case> logn_factors_cases() {
  Case timed = make("a prompt of 16384", 8192, 16384);
  timed.benchmark = true;
  return {make("one row", 2048, 1), make("more rows than one thread takes", 8192, 3001),
          make("no rows", 16, 0), timed};
}

}  // namespace millrace::ops
