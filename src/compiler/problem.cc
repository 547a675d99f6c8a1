#include "compiler/problem.h"

#include <algorithm>

#include "base/check.h"

namespace millrace::compiler {
namespace {

void append_types(const std::vector<ops::Tensor>& tensors, std::string* text) {
  for (const ops::Tensor& t : tensors) {
    const std::vector<int64_t> dims(t.dims.begin(), t.dims.begin() + t.rank);
    *text += str(" ", ir::dtype_name(t.dtype), "[", join(dims, ", "), "]");
  }
}

}  // namespace

ops::Launch Problem::launch() const {
  ops::Launch launch;
  launch.in = in;
  launch.out = out;
  launch.attributes = attributes.get();
  return launch;
}

std::string Problem::key() const {
  std::string text = str(op->name, "{", attrs_text, "}");
  append_types(in, &text);
  text += " ->";
  append_types(out, &text);
  return text;
}

bool Problem::has_state() const {
  for (const ops::Tensor& t : in) {
    if (t.dtype == ir::DType::kState) return true;
  }
  return false;
}

Problem make_problem(const ir::Graph& graph, ir::NodeId id, const ir::Bindings& bindings) {
  const ir::Node& node = graph.node(id);
  Problem problem;
  problem.op = ops::find_op(node.op);
  CHECK(problem.op != nullptr, "no op is called ", node.op);
  problem.attributes = problem.op->parse_attrs(node.attrs);
  for (const auto& [name, value] : node.attrs.entries()) {
    problem.attrs_text +=
        str(problem.attrs_text.empty() ? "" : ", ", name, "=", ir::to_string(value));
  }
  const auto tensor = [&](ir::ValueId v) {
    const ir::TensorType& type = graph.type(v);
    return ops::Tensor(nullptr, type.dtype, bindings.resolve(type.shape));
  };
  for (const ir::ValueId v : node.inputs)
    problem.in.push_back(tensor(v));
  for (const ir::ValueId v : node.outputs)
    problem.out.push_back(tensor(v));
  return problem;
}

ir::Bindings sizes_of_rows(const ir::Bindings& maxima, const std::string& symbol, int64_t rows) {
  ir::Bindings sizes = maxima;
  for (const char* name : {"T", "S", "L"}) {
    sizes.set(name, std::min(rows, sizes.at(name)));
  }
  if (!symbol.empty()) sizes.set(symbol, rows);
  return sizes;
}

std::string rows_symbol(const ir::Graph& graph, ir::NodeId id) {
  for (const ir::ValueId out : graph.node(id).outputs) {
    const ir::TensorType& type = graph.type(out);
    if (type.dtype == ir::DType::kState) continue;
    return type.shape.empty() || type.shape[0].is_static() ? "" : type.shape[0].symbol();
  }
  return "";
}

}  // namespace millrace::compiler
