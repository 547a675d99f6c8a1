#include "ops/attention_generation/attention_generation_composed.h"

#include <algorithm>
#include <array>
#include <string>

#include "ops/attention_generation/attention_generation_inputs.h"

namespace millrace::ops {
namespace {

constexpr int64_t kAlignment = 64;

const Op& rope_append() {
  static const Op& op = *find_op("rope_append");
  return op;
}

ir::Attrs append_attributes(const AttentionGeneration& a) {
  ir::Attrs attrs;
  attrs.set("heads", int64_t{a.heads});
  attrs.set("kv_heads", int64_t{a.kv_heads});
  attrs.set("head_size", int64_t{a.head_size});
  attrs.set("v_head_size", int64_t{a.v_head_size});
  attrs.set("rotary_dim", int64_t{a.rotary_dim});
  attrs.set("interleaved", a.interleaved);
  attrs.set("packed", a.packed);
  attrs.set("phase", std::string("generation"));
  return attrs;
}

AttentionGeneration attention_attributes(AttentionGeneration a) {
  a.append = a.interleaved = a.packed = false;
  a.rotary_dim = 0;
  return a;
}

}  // namespace

ComposedGeneration::ComposedGeneration(const Launch& launch) : attention_(launch) {
  const auto& a = launch.attrs<AttentionGeneration>();
  if (!a.append) return;
  const GenerationInputs at(a);
  const auto in = [&](int index) { return launch.in[static_cast<size_t>(index)]; };
  const auto add = [&](std::vector<Tensor>& list, int begin, int end) {
    for (int i = begin; i < end; ++i)
      list.push_back(in(i));
  };
  const Tensor& q = launch.in[0];
  const std::array<int64_t, 2> shape = {q.dim(0), int64_t{a.heads} * a.head_size};
  const Tensor rotated(launch.workspace, q.dtype, shape);
  bytes_ = (rotated.bytes() + kAlignment - 1) / kAlignment * kAlignment;

  append_ = launch;
  append_attributes_ = rope_append().parse_attrs(append_attributes(a));
  append_.attributes = append_attributes_.get();
  append_in_ = {q};
  if (!a.packed) add(append_in_, at.k, at.v + 1);
  add(append_in_, GenerationInputs::kSequence, GenerationInputs::kCache + 1);
  if (at.angles >= 0) append_in_.push_back(in(at.angles));
  append_.in = append_in_;
  append_out_ = {rotated, in(GenerationInputs::kCache)};
  append_.out = append_out_;

  attention_attributes_ = attention_attributes(a);
  attention_.attributes = &attention_attributes_;
  attention_in_ = {rotated};
  add(attention_in_, GenerationInputs::kSequence, GenerationInputs::kOut + 1);
  if (at.plan >= 0) attention_in_.push_back(in(at.plan));
  add(attention_in_, at.count, static_cast<int>(launch.in.size()));
  attention_.in = attention_in_;
  attention_.out = launch.out.first(1);
  if (launch.workspace != nullptr) {
    attention_.workspace = static_cast<std::byte*>(launch.workspace) + bytes_;
  }
}

void ComposedGeneration::append() const {
  if (bytes_ == 0) return;
  const std::span<const Tactic> tactics = rope_append().tactics;
  const Tactic* tactic = &tactics.back();  // the reference
  if (append_.queue->kind != device::Kind::kCpu) {
    tactic = std::find_if(tactics.data(), tactic,
                          [&](const Tactic& t) { return t.device == append_.queue->kind; });
  }
  tactic->run(append_);
}

}  // namespace millrace::ops
