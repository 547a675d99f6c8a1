#include "compiler/pass.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "ops/op.h"

namespace millrace::compiler {
namespace {

void check_names(const std::vector<Pass>& passes, const std::vector<std::string>& disabled) {
  for (const std::string& name : disabled) {
    const auto pass =
        std::find_if(passes.begin(), passes.end(), [&](const Pass& p) { return name == p.name; });
    if (pass != passes.end() && !pass->required) continue;
    std::vector<std::string> names;
    for (const Pass& p : passes) {
      if (!p.required) names.emplace_back(p.name);
    }
    throw_bad_input(pass == passes.end() ? str("there is no pass ", name)
                                         : str("pass ", name, " is needed and cannot be left out"),
                    "--disable-pass",
                    str("the passes that can be left out are ", join(names, ", ")));
  }
}

void dump(const std::string& folder, size_t number, const std::string& name,
          const std::string& text) {
  std::filesystem::create_directories(folder);
  const std::string digits = str(number < 10 ? "0" : "", number);
  AtomicFile file((std::filesystem::path(folder) / str(digits, "_", name, ".ir")).string());
  file.write(text);
  file.commit();
}

}  // namespace

std::vector<PassTime> run_passes(ir::Graph& graph, const std::vector<Pass>& passes,
                                 const PassOptions& options) {
  check_names(passes, options.disabled);
  std::vector<PassTime> times;
  std::string before = print(graph);
  if (!options.dump_folder.empty()) dump(options.dump_folder, 0, "traced", before);
  for (size_t i = 0; i < passes.size(); ++i) {
    const Pass& pass = passes[i];
    const bool is_cuda = options.device == device::Kind::kCuda;
    if (pass.cuda_only && !is_cuda) continue;
    if (pass.rounds_x && (is_cuda || !options.may_round_x)) continue;
    if (std::count(options.disabled.begin(), options.disabled.end(), pass.name) > 0) continue;
    const auto start = std::chrono::steady_clock::now();
    pass.run(graph);
    verify_ops(graph, str("after pass ", pass.name));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    std::string after = print(graph);
    times.push_back({pass.name, took.count(), after != before});
    log::debug("pass ", pass.name, ": ", took.count(), " ms");
    if (!options.dump_folder.empty() && after != before) {
      dump(options.dump_folder, i + 1, pass.name, after);
    }
    before = std::move(after);
  }
  return times;
}

void verify_ops(const ir::Graph& graph, const std::string& where) {
  ir::verify(graph, where);
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    if (node.op == ir::kInputOp || node.op == ir::kWeightOp) continue;
    const ops::Op* op = ops::find_op(node.op);
    CHECK(op != nullptr, "unknown op ", node.op, " ", where);
    std::vector<ir::TensorType> inputs, outputs;
    for (const ir::ValueId in : node.inputs)
      inputs.push_back(graph.type(in));
    for (const ir::ValueId out : node.outputs)
      outputs.push_back(graph.type(out));
    CHECK(op->infer(inputs, node.attrs) == outputs, "outputs of ", node.op, " at ", node.scope,
          " do not follow its shape rule, ", where);
  }
}

}  // namespace millrace::compiler
