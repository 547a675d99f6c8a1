#include "runtime/program.h"

#include <algorithm>

#include "base/error.h"
#include "device/named_range.h"
#include "ops/common/chain.h"

namespace millrace::runtime {

int64_t arena_bytes(const engine::Engine& engine) {
  int64_t bytes = 64;
  for (const engine::RegimePlan& regime : engine.regimes) {
    bytes = std::max(bytes, regime.arena_bytes);
  }
  if (engine.encoder) bytes = std::max(bytes, engine.encoder->regimes[0].arena_bytes);
  return bytes;
}

Program::Program(const engine::PlannedGraph& planned, const std::string& model,
                 device::Device& device)
    : planned_(planned), device_(device) {
  for (const ir::Symbol& s : planned.graph.symbols())
    symbols_.push_back(s.name);
  const std::string advice = "build the engine again with this program";
  for (const engine::PlannedLaunch& launch : planned.launches) {
    Operation made{};
    made.node = planned.graph.order()[static_cast<size_t>(launch.node)];
    const ir::Node& node = planned.graph.node(made.node);
    made.op = ops::find_op(node.op);
    if (made.op == nullptr) {
      throw_bad_input(str("the engine uses an operation ", node.op, " that is not known here"),
                      model, advice);
    }
    made.attributes = made.op->parse_attrs(node.attrs);
    made.name = node.scope.empty() ? node.op : str(node.op, " ", node.scope);
    for (const ir::ValueId out : node.outputs) {
      const ir::TensorType& type = planned.graph.type(out);
      if (type.dtype == ir::DType::kState) continue;
      if (!type.shape.empty() && !type.shape[0].is_static()) {
        const auto it = std::find(symbols_.begin(), symbols_.end(), type.shape[0].symbol());
        made.rows_symbol = static_cast<int>(it - symbols_.begin());
      }
      break;
    }
    for (const engine::TacticChoice& choice : launch.choices) {
      const auto& tactics = made.op->tactics;
      const auto it = std::find_if(tactics.begin(), tactics.end(), [&](const ops::Tactic& t) {
        return choice.tactic == t.name && t.device == device.properties().kind;
      });
      if (it == tactics.end()) {
        throw_bad_input(str("the engine uses a tactic ", choice.tactic, " that is not known here"),
                        model, advice);
      }
      made.choices.push_back({choice.max_rows, &*it});
    }
    launches_.push_back(std::move(made));
  }
}

Frame Program::make_frame(Regime regime, std::byte* arena) const {
  const engine::RegimePlan& plan = planned_.regimes[static_cast<size_t>(regime)];
  Frame frame;
  frame.values.resize(plan.values.size());
  for (size_t v = 0; v < plan.values.size(); ++v) {
    if (plan.values[v].bytes > 0) frame.values[v] = arena + plan.values[v].offset;
  }
  for (const engine::PlannedBuffer& b : plan.workspaces) {
    frame.workspaces.push_back(b.bytes > 0 ? arena + b.offset : nullptr);
  }
  return frame;
}

// 0 where they are fixed: the launch has one tactic.
int64_t Program::rows(const Operation& op, const ir::Bindings& sizes) const {
  return op.rows_symbol < 0 ? 0 : sizes.at(symbols_[static_cast<size_t>(op.rows_symbol)]);
}

const ops::Tactic* Program::tactic_for(const Operation& op, const ir::Bindings& sizes) const {
  if (op.rows_symbol < 0) return op.choices.back().tactic;
  const int64_t count = rows(op, sizes);
  for (const Choice& choice : op.choices) {
    if (count <= choice.max_rows) return choice.tactic;
  }
  return op.choices.back().tactic;
}

void Program::tensors(const std::vector<ir::ValueId>& ids, const Frame* frame,
                      const ir::Bindings& sizes, std::vector<ops::Tensor>* out) const {
  out->clear();
  for (const ir::ValueId id : ids) {
    const ir::TensorType& type = planned_.graph.type(id);
    ops::Tensor tensor;
    tensor.dtype = type.dtype;
    tensor.rank = static_cast<int>(type.shape.size());
    for (size_t d = 0; d < type.shape.size(); ++d)
      tensor.dims[d] = sizes.resolve(type.shape[d]);
    if (frame != nullptr) tensor.data = frame->values[static_cast<size_t>(id)];
    out->push_back(tensor);
  }
}

// Found as they are needed: a prompt's first launch shall not wait for the last one to be chosen.
Program::Group Program::next_group(const ir::Bindings& sizes, const Range& range, int* next) const {
  Group group{};
  std::array<ops::ChainLink, ops::kMaxChain> links;
  const size_t most = observations == nullptr ? links.size() : 1;
  size_t found = 0;
  for (int i = *next; i < range.end && found < most; ++i) {
    const Operation& op = launches_[static_cast<size_t>(i)];
    if (op.op->phase == ops::Phase::kContext && !range.context) continue;
    if (op.op->phase == ops::Phase::kGeneration && !range.generation) continue;
    group.launches[found] = i;
    links[found++] = {tactic_for(op, sizes), rows(op, sizes)};
    if (links[0].tactic->run_chain == nullptr) break;
  }
  if (found == 0) return group;
  group.tactic = links[0].tactic;
  group.count = ops::chain_length(std::span(links).first(found));
  *next = group.launches[group.count - 1] + 1;
  return group;
}

std::vector<Program::Group> Program::groups(const ir::Bindings& sizes, const Range& range) const {
  std::vector<Group> groups;
  for (int next = range.begin;;) {
    const Group group = next_group(sizes, range, &next);
    if (group.count == 0) return groups;
    groups.push_back(group);
  }
}

void Program::place(int index, const Frame& frame, const ir::Bindings& sizes,
                    Placed* placed) const {
  const Operation& op = launches_[static_cast<size_t>(index)];
  const ir::Node& node = planned_.graph.node(op.node);
  tensors(node.inputs, &frame, sizes, &placed->in);
  tensors(node.outputs, &frame, sizes, &placed->out);
  placed->launch = {.in = placed->in,
                    .out = placed->out,
                    .attributes = op.attributes.get(),
                    .workspace = frame.workspaces[static_cast<size_t>(index)],
                    .queue = &device_.queue()};
}

int Program::run(const Frame& frame, const ir::Bindings& sizes, const Range& range) const {
  std::array<Placed, ops::kMaxChain> placed;
  std::array<ops::Launch, ops::kMaxChain> launches;
  int count = 0;
  for (int next = range.begin;; ++count) {
    const Group group = next_group(sizes, range, &next);
    if (group.count == 0) return count;
    for (size_t i = 0; i < group.count; ++i) {
      place(group.launches[i], frame, sizes, &placed[i]);
      launches[i] = placed[i].launch;
    }
    const int first = group.launches[0];
    if (observations != nullptr) {
      observations->push_back({first, device_.make_event(), device_.make_event()});
      observations->back().begin->record();
    }
    const std::string& name = launches_[static_cast<size_t>(first)].name;
    const device::NamedRange named(device_.properties().kind, name.c_str());
    if (group.count == 1) {
      group.tactic->run(launches[0]);
    } else {
      group.tactic->run_chain(std::span(launches).first(group.count));
    }
    if (observations != nullptr) observations->back().end->record();
  }
}

Program::Description Program::describe(int index, const ir::Bindings& sizes) const {
  const Operation& op = launches_[static_cast<size_t>(index)];
  const ir::Node& node = planned_.graph.node(op.node);
  Description d{op.op, tactic_for(op, sizes), op.attributes, node.scope, {}, {}, {}};
  tensors(node.inputs, nullptr, sizes, &d.in);
  tensors(node.outputs, nullptr, sizes, &d.out);
  ops::Launch launch;
  launch.in = d.in;
  launch.out = d.out;
  launch.attributes = op.attributes.get();
  d.cost = op.op->cost(launch);
  return d;
}

}  // namespace millrace::runtime
