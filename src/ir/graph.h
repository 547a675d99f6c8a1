// The graph: values with a dtype and a shape, each made by one node. In SSA form and in execution
// order. What models trace, passes rewrite, engines store (as text) and the runtime walks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attrs.h"
#include "ir/dtype.h"
#include "ir/shape.h"

namespace millrace::ir {

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr int32_t kNone = -1;

struct TensorType {
  DType dtype = DType::kF32;
  Shape shape;
  bool operator==(const TensorType&) const = default;
};

/// `f32[T, 384]`.
std::string to_string(const TensorType& type);

struct Value {
  TensorType type;
  NodeId producer = kNone;
};

/// Ops known to the graph itself: both have no inputs and an attribute `name`.
///   input   what a step brings; names that begin with `host_` lie in host memory
///   weight  from the checkpoint. `name` is the tensor's own; several joined by '|' are stacked
///   along dimension 0, with
///           `rows` of each; `transposed` = true: the checkpoint stores [K, N] for our [N, K];
///           `unit_rows` = true: each row is divided by its length.
inline constexpr std::string_view kInputOp = "input";
inline constexpr std::string_view kWeightOp = "weight";

struct Node {
  std::string op;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  Attrs attrs;
  std::string scope;  // where the model made it, in the checkpoint's words: `model.layers.3.mlp`
};

struct GraphOutput {
  std::string name;
  ValueId value = kNone;
};

class Graph {
 public:
  explicit Graph(std::string name = "graph") : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }

  /// Declares a symbolic dimension. REQUIRES: not declared before with another bound.
  void add_symbol(const std::string& symbol, int64_t max);
  const std::vector<Symbol>& symbols() const { return symbols_; }

  /// Appends a node (or inserts it before `insertion_point`) and returns its id.
  NodeId add(Node node, const std::vector<TensorType>& outputs);
  /// The same for a node with one output: returns the value.
  ValueId add(std::string op, std::vector<ValueId> inputs, TensorType output, Attrs attrs = {});

  ValueId add_input(const std::string& name, TensorType type);
  /// The value of the input with this name, or kNone.
  ValueId find_input(std::string_view name) const;

  void add_output(std::string name, ValueId value) { outputs_.push_back({std::move(name), value}); }
  const std::vector<GraphOutput>& outputs() const { return outputs_; }

  /// Nodes in execution order.
  const std::vector<NodeId>& order() const { return order_; }
  const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  Node& node(NodeId id) { return nodes_[static_cast<size_t>(id)]; }
  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  const TensorType& type(ValueId id) const { return value(id).type; }
  const Node& producer(ValueId id) const { return node(value(id).producer); }
  int64_t num_values() const { return static_cast<int64_t>(values_.size()); }
  int64_t num_nodes() const { return static_cast<int64_t>(nodes_.size()); }

  /// How many node inputs and graph outputs read this value.
  int num_uses(ValueId id) const;
  /// The nodes that read this value, in execution order, each once.
  std::vector<NodeId> users(ValueId id) const;
  void replace_uses(ValueId from, ValueId to);
  /// REQUIRES: nothing reads its outputs.
  void erase(NodeId id);
  void set_order(std::vector<NodeId> order) { order_ = std::move(order); }

  /// New nodes go before this node until the guard ends (passes rewrite in the middle of a graph).
  class InsertBefore {
   public:
    InsertBefore(Graph& graph, NodeId node) : graph_(graph), saved_(graph.insertion_point_) {
      graph.insertion_point_ = node;
    }
    ~InsertBefore() { graph_.insertion_point_ = saved_; }
    InsertBefore(const InsertBefore&) = delete;
    InsertBefore& operator=(const InsertBefore&) = delete;

   private:
    Graph& graph_;
    NodeId saved_;
  };

  /// The scope given to new nodes.
  void set_scope(std::string scope) { scope_ = std::move(scope); }
  const std::string& scope() const { return scope_; }

 private:
  std::string name_, scope_;
  std::vector<Symbol> symbols_;
  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<NodeId> order_;
  std::vector<GraphOutput> outputs_;
  NodeId insertion_point_ = kNone;
};

/// The text form; parse(print(g)) prints the same. Values are numbered in execution order.
std::string print(const Graph& graph);

/// Reads the text form. Throws Error (kBadInput) with `where` and the line on anything it does not
/// understand.
Graph parse(std::string_view text, const std::string& where = "graph text");

/// Structural rules, checked after every pass: inputs are made before they are read, outputs have
/// one producer, symbols are declared, leaves have a name, names of inputs and outputs are unique.
/// Throws Error on the first fault.
void verify(const Graph& graph, const std::string& where);

}  // namespace millrace::ir
