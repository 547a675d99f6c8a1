#include "runtime/op_calls.h"

#include <algorithm>

#include "base/check.h"
#include "device/named_range.h"

namespace millrace::runtime {

OpCall::OpCall(std::string_view name, const ir::Attrs& attrs) : op(ops::find_op(name)) {
  CHECK(op != nullptr, "no op is called ", name);
  attributes = op->parse_attrs(attrs);
}

void OpCalls::reserve(const OpCall& call, std::vector<ops::Tensor> in,
                      std::vector<ops::Tensor> out) {
  ops::Launch launch;
  launch.in = in;
  launch.out = out;
  launch.attributes = call.attributes.get();
  const ops::Tactic& tactic = choose(call, launch);
  if (tactic.workspace == nullptr) return;
  bytes_ = std::max(bytes_, tactic.workspace(launch, device_.properties()));
}

void OpCalls::allocate() {
  scratch_ = device_.allocate(bytes_, "sampler scratch");
}

void OpCalls::run(const OpCall& call, std::vector<ops::Tensor> in, std::vector<ops::Tensor> out) {
  ops::Launch launch;
  launch.in = in;
  launch.out = out;
  launch.attributes = call.attributes.get();
  launch.queue = &device_.queue();
  const ops::Tactic& tactic = choose(call, launch);
  if (tactic.workspace != nullptr) {
    DCHECK(tactic.workspace(launch, device_.properties()) <= bytes_);
    launch.workspace = scratch_->data();
  }
  const device::NamedRange range(device_.properties().kind, call.op->name);
  tactic.run(launch);
  ++runs_;
}

const ops::Tactic& OpCalls::choose(const OpCall& call, const ops::Launch& launch) const {
  const device::Properties& device = device_.properties();
  for (const ops::Tactic& tactic : call.op->tactics) {
    if (tactic.device != device.kind) continue;
    if (tactic.why_not == nullptr || tactic.why_not(launch, device).empty()) return tactic;
  }
  CHECK(false, "no tactic for ", call.op->name);
  return call.op->tactics[0];
}

ops::Tensor matrix_at(void* data, ir::DType dtype, int64_t rows, int64_t columns) {
  const std::array<int64_t, 2> shape = {rows, columns};
  return {data, dtype, shape};
}

ops::Tensor vector_at(void* data, ir::DType dtype, int64_t count) {
  const std::array<int64_t, 1> shape = {count};
  return {data, dtype, shape};
}

}  // namespace millrace::runtime
