#include "ir/graph.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "base/error.h"

namespace millrace::ir {

std::string to_string(const TensorType& type) {
  return str(dtype_name(type.dtype), to_string(type.shape));
}

void Graph::add_symbol(const std::string& symbol, int64_t max) {
  for (const Symbol& s : symbols_) {
    if (s.name != symbol) continue;
    CHECK(s.max == max, "symbol ", symbol, " has two bounds, ", s.max, " and ", max);
    return;
  }
  symbols_.push_back({symbol, max});
}

NodeId Graph::add(Node node, const std::vector<TensorType>& outputs) {
  const auto id = static_cast<NodeId>(nodes_.size());
  node.outputs.clear();
  for (const TensorType& type : outputs) {
    node.outputs.push_back(static_cast<ValueId>(values_.size()));
    values_.push_back({type, id});
  }
  if (node.scope.empty()) node.scope = scope_;
  nodes_.push_back(std::move(node));
  if (insertion_point_ == kNone) {
    order_.push_back(id);
  } else {
    order_.insert(std::find(order_.begin(), order_.end(), insertion_point_), id);
  }
  return id;
}

ValueId Graph::add(std::string op, std::vector<ValueId> inputs, TensorType output, Attrs attrs) {
  Node made{std::move(op), std::move(inputs), {}, std::move(attrs), ""};
  return node(add(std::move(made), {std::move(output)})).outputs[0];
}

ValueId Graph::add_input(const std::string& name, TensorType type) {
  Attrs attrs;
  attrs.set("name", name);
  return add(std::string(kInputOp), {}, std::move(type), std::move(attrs));
}

ValueId Graph::find_input(std::string_view name) const {
  for (const NodeId id : order_) {
    if (node(id).op != kInputOp) continue;
    const AttrValue* value = node(id).attrs.find("name");
    if (value != nullptr && *value == AttrValue(std::string(name))) return node(id).outputs[0];
  }
  return kNone;
}

int Graph::num_uses(ValueId id) const {
  int uses = 0;
  for (const NodeId n : order_) {
    uses += static_cast<int>(std::count(node(n).inputs.begin(), node(n).inputs.end(), id));
  }
  for (const GraphOutput& out : outputs_)
    uses += out.value == id ? 1 : 0;
  return uses;
}

std::vector<NodeId> Graph::users(ValueId id) const {
  std::vector<NodeId> found;
  for (const NodeId n : order_) {
    const auto& in = node(n).inputs;
    if (std::find(in.begin(), in.end(), id) != in.end()) found.push_back(n);
  }
  return found;
}

void Graph::replace_uses(ValueId from, ValueId to) {
  for (const NodeId n : order_) {
    std::replace(node(n).inputs.begin(), node(n).inputs.end(), from, to);
  }
  for (GraphOutput& out : outputs_) {
    if (out.value == from) out.value = to;
  }
}

void Graph::erase(NodeId id) {
  for (const ValueId out : node(id).outputs) {
    CHECK(num_uses(out) == 0, "a value of erased ", node(id).op, " is still read");
  }
  std::erase(order_, id);
}

namespace {

class Verifier {
 public:
  Verifier(const Graph& graph, const std::string& where) : graph_(graph), where_(where) {}

  void run() {
    for (const NodeId id : graph_.order())
      check_node(id);
    std::set<std::string> names;
    for (const GraphOutput& out : graph_.outputs()) {
      if (!defined_.contains(out.value)) fail(str("output ", out.name, " has no producer"));
      if (!names.insert(out.name).second) fail(str("two outputs are called ", out.name));
    }
  }

 private:
  void check_node(NodeId id) {
    const Node& node = graph_.node(id);
    if (!seen_.insert(id).second) fail(str(node.op, " stands twice in the order"));
    for (const ValueId in : node.inputs) {
      if (!defined_.contains(in)) {
        fail(str(node.op, " (", node.scope, ") reads a value before it is made"));
      }
    }
    for (const ValueId out : node.outputs) {
      if (graph_.value(out).producer != id) fail(str(node.op, " lists an output it does not make"));
      check_shape(node, graph_.type(out).shape);
      defined_.insert(out);
    }
    if (node.op == kInputOp || node.op == kWeightOp) check_leaf(node);
  }

  void check_leaf(const Node& node) {
    const AttrValue* name = node.attrs.find("name");
    if (name == nullptr || !std::holds_alternative<std::string>(*name)) {
      fail(str("a leaf ", node.op, " has no name"));
    }
    if (!node.inputs.empty() || node.outputs.size() != 1) {
      fail(str(node.op, " must have no input and one output"));
    }
    if (node.op == kInputOp && !inputs_.insert(std::get<std::string>(*name)).second) {
      fail(str("two inputs are called ", std::get<std::string>(*name)));
    }
  }

  void check_shape(const Node& node, const Shape& shape) {
    for (const Dim& dim : shape) {
      if (dim.is_static()) {
        if (dim.value() < 0) fail(str(node.op, " makes a negative dimension"));
        continue;
      }
      const auto& symbols = graph_.symbols();
      const bool known = std::any_of(symbols.begin(), symbols.end(),
                                     [&](const Symbol& s) { return s.name == dim.symbol(); });
      if (!known) fail(str("dimension ", dim.symbol(), " of ", node.op, " is not declared"));
    }
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw_failed(str("invalid graph: ", what), where_,
                 "this is a bug in Millrace; --disable-pass NAME may avoid it");
  }

  const Graph& graph_;
  const std::string& where_;
  std::set<ValueId> defined_;
  std::set<NodeId> seen_;
  std::set<std::string> inputs_;
};

}  // namespace

void verify(const Graph& graph, const std::string& where) {
  Verifier(graph, where).run();
}

}  // namespace millrace::ir
