#include "ops/harness/op_call.h"

#include <cstring>
#include <utility>

#include "base/thread_pool.h"
#include "ops/harness/case_run.h"
#include "ops/op.h"

namespace millrace::ops {

std::vector<float> HostTensor::floats() const {
  std::vector<float> values(bytes.size() / static_cast<size_t>(ir::dtype_size(dtype)));
  ir::convert(dtype, bytes.data(), ir::DType::kF32, values.data(),
              static_cast<int64_t>(values.size()));
  return values;
}

std::vector<int32_t> HostTensor::ints() const {
  CHECK(dtype == ir::DType::kI32);
  std::vector<int32_t> values(bytes.size() / 4);
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

HostTensor host_floats(std::vector<int64_t> shape, const std::vector<float>& values,
                       ir::DType dtype) {
  HostTensor tensor{dtype, std::move(shape), {}};
  CHECK(Tensor(nullptr, dtype, tensor.shape).count() == static_cast<int64_t>(values.size()));
  tensor.bytes.resize(values.size() * static_cast<size_t>(ir::dtype_size(dtype)));
  ir::convert(ir::DType::kF32, values.data(), dtype, tensor.bytes.data(),
              static_cast<int64_t>(values.size()));
  return tensor;
}

HostTensor host_ints(std::vector<int64_t> shape, const std::vector<int32_t>& values) {
  HostTensor tensor{ir::DType::kI32, std::move(shape), {}};
  CHECK(Tensor(nullptr, tensor.dtype, tensor.shape).count() == static_cast<int64_t>(values.size()));
  tensor.bytes.resize(values.size() * 4);
  if (!values.empty()) std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

std::vector<HostTensor> call_op(std::string_view op, const ir::Attrs& attrs,
                                const std::vector<HostTensor>& inputs, std::string_view tactic) {
  const Op* found = find_op(op);
  CHECK(found != nullptr, "no op is called ", op);
  const Tactic* chosen = reference_tactic(*found);
  for (const Tactic& candidate : found->tactics) {
    if (candidate.name == tactic) chosen = &candidate;
  }
  CHECK(chosen != nullptr && (tactic.empty() || chosen->name == tactic), "no tactic ", tactic);
  Case c;
  c.name = "call";
  c.attrs = attrs;
  for (const HostTensor& input : inputs) {
    const auto copy = [bytes = input.bytes](ir::DType, std::byte* data, int64_t, Random&) {
      if (!bytes.empty()) std::memcpy(data, bytes.data(), bytes.size());
    };
    c.inputs.push_back(filled(input.dtype, input.shape, copy));
  }
  const CaseData data(*found, c);
  const auto device = device::make_cpu_device(1);
  CaseRun run(data, *chosen, *device, {device->queue(), 1, 0});
  run.reset();
  run.run();
  std::vector<HostTensor> outputs;
  const std::vector<OutputImage> images = run.outputs();
  for (size_t i = 0; i < images.size(); ++i) {
    const Tensor& type = data.out[i];
    outputs.push_back(
        {type.dtype, {type.dims.begin(), type.dims.begin() + type.rank}, images[i].after});
  }
  return outputs;
}

}  // namespace millrace::ops
