// remove_dead: drops nodes whose results nobody reads. A step's inputs go too when no op wants
// them.
//
//   %1: f32[T, 8] = add(%0, %0)        (nothing)
//   return y=%0                    ->  return y=%0
//
// Nothing has side effects: a KV cache is a value that rope_append passes on to the attention that
// reads it.
#include "compiler/passes/passes.h"

namespace millrace::compiler {

void remove_dead(ir::Graph& graph) {
  const std::vector<ir::NodeId> order = graph.order();
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    bool read = false;
    for (const ir::ValueId out : graph.node(*it).outputs)
      read = read || graph.num_uses(out) > 0;
    if (!read) graph.erase(*it);
  }
}

}  // namespace millrace::compiler
