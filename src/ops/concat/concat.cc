#include "ops/concat/concat.h"

#include "base/error.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  if (types.empty()) throw_bad_input("no inputs; expected is at least one", "concat");
  ir::TensorType out = types[0];
  if (out.shape.empty()) throw_bad_input("input 0 is a scalar", "concat");
  int64_t rows = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    ir::TensorType rest = types[i];
    if (!rest.shape.empty()) {
      if (!rest.shape[0].is_static()) {
        throw_bad_input(str("input ", i, " is ", ir::to_string(types[i]), ", of no fixed length"),
                        "concat");
      }
      rows += rest.shape[0].value();
      rest.shape[0] = out.shape[0];
    }
    if (rest != out) {
      throw_bad_input(str("input ", i, " is ", ir::to_string(types[i]), ", input 0 is ",
                          ir::to_string(types[0])),
                      "concat");
    }
  }
  out.shape[0] = rows;
  return {out};
}

Cost cost(const Launch& launch) {
  return {.bytes = 2.0 * static_cast<double>(launch.out[0].bytes()), .flops = 0};
}

}  // namespace

const Op& op_concat() {
  static constexpr Op kOp = {
      .name = "concat", .infer = infer, .parse_attrs = parse_attrs<Concat>, .cost = cost};
  return kOp;
}

}  // namespace millrace::ops
