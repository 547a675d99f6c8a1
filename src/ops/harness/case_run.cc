#include "ops/harness/case_run.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"
#include "base/str.h"

namespace millrace::ops {
namespace {

uint64_t hash(std::string_view text, uint64_t seed) {  // FNV-1a
  for (const char c : text)
    seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return seed;
}

std::vector<ir::TensorType> input_types(const Case& c) {
  std::vector<ir::TensorType> types;
  for (const InputSpec& input : c.inputs) {
    types.push_back({input.dtype, ir::Shape(input.shape.begin(), input.shape.end())});
  }
  return types;
}

void fill_input(const InputSpec& input, Random& random, std::vector<std::byte>* bytes,
                KvCacheView* view) {
  if (input.dtype == ir::DType::kState) {
    CHECK(input.state != nullptr, "a state input without a builder");
    StateImage image = input.state(random);
    *bytes = std::move(image.bytes);
    *view = image.view;
    return;
  }
  const int64_t count = Tensor(nullptr, input.dtype, input.shape).count();
  bytes->resize(static_cast<size_t>(count * ir::dtype_size(input.dtype)));
  input.fill(input.dtype, bytes->data(), count, random);
}

}  // namespace

CaseData::CaseData(const Op& the_op, const Case& c, Contents contents)
    : op(the_op), source(c), inputs(c.inputs.size()), views(c.inputs.size()) {
  Random random(hash(c.name, hash(op.name, 0xcbf29ce484222325u)));
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const bool fills = contents == kFilled || (contents == kHost && c.inputs[i].host);
    if (fills) fill_input(c.inputs[i], random, &inputs[i], &views[i]);
    in.emplace_back(nullptr, c.inputs[i].dtype, c.inputs[i].shape);
  }
  const ir::Bindings no_symbols;
  for (const ir::TensorType& type : op.infer(input_types(c), c.attrs)) {
    out.emplace_back(nullptr, type.dtype, no_symbols.resolve(type.shape));
  }
  attributes_ = op.parse_attrs(c.attrs);
}

Launch CaseData::shape_launch() const {
  Launch launch;
  launch.in = in;
  launch.out = out;
  launch.attributes = attributes_.get();
  return launch;
}

Cost CaseData::cost() const {
  if (op.cost == nullptr) return {};
  std::vector<Tensor> contents = in;
  for (size_t i = 0; i < in.size(); ++i) {
    if (inputs[i].empty()) continue;
    // Costs only read.
    if (source.inputs[i].host) contents[i].data = const_cast<std::byte*>(inputs[i].data());
    if (in[i].dtype == ir::DType::kState) contents[i].data = const_cast<KvCacheView*>(&views[i]);
  }
  Launch launch = shape_launch();
  launch.in = contents;
  return op.cost(launch);
}

int CaseData::state_input() const {
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i].dtype == ir::DType::kState) return static_cast<int>(i);
  }
  return -1;
}

const Tactic* reference_tactic(const Op& op) {
  const Tactic* last = nullptr;
  for (const Tactic& tactic : op.tactics) {
    if (tactic.device == device::Kind::kCpu) last = &tactic;
  }
  return last;
}

std::byte poison_byte(ir::DType dtype) {
  return ir::is_float(dtype) ? std::byte{0xff} : std::byte{0x7f};
}

CaseRun::CaseRun(const CaseData& data, const Tactic& tactic, device::Device& device,
                 const Placement& placement)
    : data_(data), tactic_(tactic), device_(device), queue_(placement.queue) {
  for (size_t i = 0; i < data.in.size(); ++i)
    add_input(i, placement);
  for (size_t i = 0; i < data.out.size(); ++i)
    add_output(i);
  device::Properties properties = device.properties();
  if (properties.kind == device::Kind::kCpu) properties.threads = placement.threads;
  const int64_t bytes =
      tactic.workspace == nullptr ? 0 : tactic.workspace(data.shape_launch(), properties);
  workspace_ = std::make_unique<GuardedBuffer>(device, bytes, GuardedBuffer::kCanary);
}

void CaseRun::add_input(size_t i, const Placement& placement) {
  const InputSpec& spec = data_.source.inputs[i];
  const bool is_state = spec.dtype == ir::DType::kState;
  device::Device* device = &device_;
  if (spec.host && device_.properties().kind != device::Kind::kCpu) {
    if (host_ == nullptr) host_ = device::make_cpu_device(1);
    device = host_.get();
  }
  const int64_t shift = is_state ? 0 : placement.shift * ir::dtype_size(spec.dtype);
  inputs_.push_back(std::make_unique<GuardedBuffer>(
      *device, static_cast<int64_t>(data_.inputs[i].size()), GuardedBuffer::kNanGuard, shift));
  in_.push_back(data_.in[i]);
  in_.back().data = inputs_.back()->data();
  if (is_state) {
    views_.push_back(data_.views[i]);
    views_.back().pool = inputs_.back()->data();
    in_.back().data = &views_.back();
  }
}

void CaseRun::add_output(size_t i) {
  const Tensor& type = data_.out[i];
  out_.push_back(type);
  int source = i == 0 ? data_.op.alias_input : -1;
  if (type.dtype == ir::DType::kState) source = data_.state_input();
  if (source >= 0) {
    outputs_.push_back(nullptr);
    out_.back().data = in_[static_cast<size_t>(source)].data;
    return;
  }
  outputs_.push_back(
      std::make_unique<GuardedBuffer>(device_, type.bytes(), GuardedBuffer::kCanary));
  out_.back().data = outputs_.back()->data();
}

void CaseRun::reset() {
  for (size_t i = 0; i < inputs_.size(); ++i)
    inputs_[i]->upload(data_.inputs[i]);
  for (size_t i = 0; i < outputs_.size(); ++i) {
    if (outputs_[i] == nullptr) continue;
    outputs_[i]->upload(std::vector<std::byte>(static_cast<size_t>(outputs_[i]->size()),
                                               poison_byte(data_.out[i].dtype)));
  }
  workspace_->upload(
      std::vector<std::byte>(static_cast<size_t>(workspace_->size()), std::byte{0xff}));
}

Launch CaseRun::launch() {
  Launch launch = data_.shape_launch();
  launch.in = in_;
  launch.out = out_;
  launch.workspace = workspace_->data();
  launch.queue = &queue_;
  return launch;
}

void CaseRun::run() {
  tactic_.run(launch());
}

std::string CaseRun::damage() const {
  device_.synchronize();
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (const auto at = inputs_[i]->changed_guard()) {
      return str("wrote beside input ", i, ", at byte ", *at, " of ", inputs_[i]->size());
    }
    const bool may_change =
        data_.in[i].dtype == ir::DType::kState
            ? std::any_of(data_.out.begin(), data_.out.end(),
                          [](const Tensor& t) { return t.dtype == ir::DType::kState; })
            : static_cast<int>(i) == data_.op.alias_input;
    if (!may_change && inputs_[i]->download() != data_.inputs[i]) {
      return str("changed input ", i);
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    if (outputs_[i] == nullptr) continue;
    if (const auto at = outputs_[i]->changed_guard()) {
      return str("wrote beside output ", i, ", at byte ", *at, " of ", outputs_[i]->size());
    }
  }
  if (const auto at = workspace_->changed_guard()) {
    return str("wrote beside the workspace, at byte ", *at, " of ", workspace_->size());
  }
  return "";
}

std::vector<OutputImage> CaseRun::outputs() const {
  device_.synchronize();
  std::vector<OutputImage> images;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    OutputImage image;
    image.is_state = data_.out[i].dtype == ir::DType::kState;
    const int source = image.is_state ? data_.state_input() : data_.op.alias_input;
    const auto from = static_cast<size_t>(source);
    image.dtype = image.is_state ? data_.views[from].dtype : data_.out[i].dtype;
    if (outputs_[i] == nullptr) {
      image.before = {std::shared_ptr<const void>(), &data_.inputs[from]};
      image.after = inputs_[from]->download();
    } else {
      image.after = outputs_[i]->download();
      image.before = std::make_shared<const std::vector<std::byte>>(image.after.size(),
                                                                    poison_byte(image.dtype));
    }
    images.push_back(std::move(image));
  }
  return images;
}

}  // namespace millrace::ops
