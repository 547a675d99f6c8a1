#include "ops/harness/cases.h"
#include "ops/sinusoid/sinusoid.h"

namespace millrace::ops {
namespace {

Case make(std::string name, int dim, int64_t rows, const std::string& dtype = "f32") {
  return {.name = std::move(name),
          .attrs = to_attrs(Sinusoid{.dim = dim, .dtype = dtype}),
          .inputs = {ids({rows}, 1024)}};
}

}  // namespace

std::vector<Case> sinusoid_cases() {
  Case timed = make("Marian, a text of 128", 512, 128);
  timed.benchmark = true;
  return {
      make("one row", 64, 1),       make("odd width: one more sine", 27, 9),
      make("bf16", 48, 17, "bf16"), make("f16", 48, 17, "f16"),
      make("no rows", 16, 0),       timed,
  };
}

}  // namespace millrace::ops
