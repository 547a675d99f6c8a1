// The text form and the structural rules of graphs.
#include "ir/graph.h"

#include <bit>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "base/error.h"

namespace millrace::ir {
namespace {

using Random = std::mt19937_64;

AttrValue random_attr(Random& random) {
  switch (random() % 5) {
    case 0:
      return static_cast<int64_t>(random());
    case 1: {
      const double value = std::bit_cast<double>(static_cast<uint64_t>(random()));
      return std::isnan(value) ? 0.1 : value;
    }
    case 2:
      return random() % 2 == 0;
    case 3: {
      std::string text;
      for (uint64_t i = random() % 6; i > 0; --i)
        text += "\"\\n\n,}%@ |\t"[random() % 11];
      return text;
    }
    default: {
      std::vector<double> list;
      for (uint64_t i = random() % 4; i > 0; --i)
        list.push_back(std::ldexp(static_cast<double>(random() % 1000), 3 - static_cast<int>(i)));
      return list;
    }
  }
}

TensorType random_type(Random& random) {
  TensorType type{static_cast<DType>(random() % kNumDTypes), {}};
  for (uint64_t i = random() % 4; i > 0; --i) {
    if (random() % 2 == 0) {
      type.shape.emplace_back("T");
    } else {
      type.shape.emplace_back(static_cast<int64_t>(random() % 5000));
    }
  }
  return type;
}

Graph random_graph(Random& random) {
  Graph graph("random");
  graph.add_symbol("T", static_cast<int64_t>(random() % 9999));
  graph.add_input("x", random_type(random));
  for (uint64_t i = 1 + random() % 20; i > 0; --i) {
    Node node;
    node.op = "op" + std::to_string(random() % 9);
    if (random() % 2 == 0) node.scope = "model.layers." + std::to_string(random() % 40);
    for (uint64_t k = random() % 4; k > 0; --k) {
      node.inputs.push_back(
          static_cast<ValueId>(random() % static_cast<uint64_t>(graph.num_values())));
    }
    for (uint64_t k = random() % 4; k > 0; --k)
      node.attrs.set("a" + std::to_string(k), random_attr(random));
    std::vector<TensorType> outputs;
    for (uint64_t k = 1 + random() % 2; k > 0; --k)
      outputs.push_back(random_type(random));
    graph.add(std::move(node), outputs);
  }
  for (uint64_t i = random() % 3; i > 0; --i) {
    graph.add_output("y" + std::to_string(i),
                     static_cast<ValueId>(random() % static_cast<uint64_t>(graph.num_values())));
  }
  return graph;
}

TEST(GraphText, RandomGraphsComeBack) {
  Random random(7);
  for (int trial = 0; trial < 300; ++trial) {
    const Graph graph = random_graph(random);
    verify(graph, "test");
    const std::string text = print(graph);
    const Graph back = parse(text);
    ASSERT_EQ(print(back), text);
    // Printing could lose the same thing twice: compare what was read with what was made.
    ASSERT_EQ(back.symbols(), graph.symbols());
    ASSERT_EQ(back.order().size(), graph.order().size());
    for (size_t i = 0; i < graph.order().size(); ++i) {
      const Node& made = graph.node(graph.order()[i]);
      const Node& read = back.node(back.order()[i]);
      ASSERT_EQ(read.op, made.op);
      ASSERT_EQ(read.inputs, made.inputs);
      ASSERT_EQ(read.outputs, made.outputs);
      ASSERT_EQ(read.attrs, made.attrs) << text;
      ASSERT_EQ(read.scope, made.scope);
      for (const ValueId out : made.outputs)
        ASSERT_EQ(back.type(out), graph.type(out));
    }
  }
}

TEST(GraphText, NumbersValuesInExecutionOrder) {
  Graph graph("g");
  const ValueId x = graph.add_input("x", {DType::kF32, {2}});
  const ValueId y = graph.add("relu", {x}, {DType::kF32, {2}});
  const Graph::InsertBefore guard(graph, graph.value(y).producer);
  graph.replace_uses(x, graph.add("neg", {x}, {DType::kF32, {2}}));
  graph.node(graph.order()[1]).inputs = {x};
  graph.add_output("y", y);
  EXPECT_EQ(print(graph),
            "graph g {\n"
            "  %0: f32[2] = input() {name=\"x\"}\n"
            "  %1: f32[2] = neg(%0)\n"
            "  %2: f32[2] = relu(%1)\n"
            "  return y=%2\n"
            "}\n");
}

struct BadText {
  const char* text;
  const char* says;
  int line;
};

TEST(GraphText, EveryErrorNamesItsLine) {
  const BadText cases[] = {
      {"", "'graph' is missing", 1},
      {"graph {}", "a graph name is missing", 1},
      {"graph g\nreturn }", "'{' is missing", 2},
      {"graph g {\ndim T < 4\nreturn }", "'=' is missing", 2},
      {"graph g {\ndim T <= -4\nreturn }", "bound is negative", 2},
      {"graph g {\ndim T <= 4\ndim T <= 4\nreturn }", "T is declared twice", 3},
      {"graph g {\ndim T <= 4.5\nreturn }", "whole number", 2},
      {"graph g {\ndim T <= 99999999999999999999\nreturn }", "whole number", 2},
      {"graph g {\n%0 f32[2] = a()\nreturn }", "':' is missing", 2},
      {"graph g {\n%0: f33[2] = a()\nreturn }", "unknown element type f33", 2},
      {"graph g {\n%0: f32[2,] = a()\nreturn }", "a dimension is missing", 2},
      {"graph g {\n%0: f32[2x] = a()\nreturn }", "'2x' is not a value", 2},
      {"graph g {\n%0: f32[2] = ()\nreturn }", "an op name is missing", 2},
      {"graph g {\n%0: f32[2] = a(%0)\nreturn }", "%0 is read before it is made", 2},
      {"graph g {\n%0: f32[2] = a()\n%0: f32[2] = a()\n\nreturn }", "%0 is made twice", 3},
      {"graph g {\n%0: f32[2], %0: f32[2] = a()\n\nreturn }", "%0 is made twice", 2},
      {"graph g {\n%0: f32[2] = a() {b=1,\nb=2}\nreturn }", "b is given twice", 3},
      {"graph g {\n%0: f32[2] = a() {b=maybe}\nreturn }", "'maybe' is not a value", 2},
      {"graph g {\n%0: f32[2] = a() {b=[1, true]}\nreturn }", "'true' is not a value", 2},
      {"graph g {\n%0: f32[2] = a() {b=\"x}\nreturn }", "'\"' is missing", 3},
      {"graph g {\n%0: f32[2] = a() @\nreturn y=%0 }", "'return' is missing", 3},
      {"graph g {\n%0: f32[2] = a()\nreturn y=%1 }", "%1 is read before it is made", 3},
      {"graph g {\n%0: f32[2] = a()\nreturn y=%0 z=%0 }", "',' is missing", 3},
      {"graph g {\n%0: f32[2] = a()\nreturn y=%0", "',' is missing", 3},
      {"graph g {\nreturn }\nmore", "text after the end", 3},
  };
  for (const BadText& bad : cases) {
    SCOPED_TRACE(bad.text);
    try {
      parse(bad.text, "here");
      ADD_FAILURE() << "was read";
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find(bad.says), std::string::npos) << what;
      EXPECT_NE(what.find("here, line " + std::to_string(bad.line) + ")"), std::string::npos)
          << what;
    }
  }
}

// A text cut anywhere is an error, never a graph or a crash.
TEST(GraphText, RefusesEveryPrefix) {
  Random random(3);
  const std::string text = print(random_graph(random));
  for (size_t size = 0; size + 2 < text.size(); ++size)
    EXPECT_THROW(parse(text.substr(0, size)), Error) << size;
}

struct Small {
  Graph graph{"g"};
  ValueId x = graph.add_input("x", {DType::kF32, {2}});
  ValueId y = graph.add("relu", {x}, {DType::kF32, {2}});
  ValueId z = graph.add("relu", {y}, {DType::kF32, {2}});
};

std::string fault(const Graph& graph) {
  try {
    verify(graph, "pass p");
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("pass p"), std::string::npos) << what;
    return what;
  }
  return "none";
}

#define EXPECT_FAULT(graph, text) EXPECT_NE(fault(graph).find(text), std::string::npos)

TEST(GraphVerify, AcceptsASoundGraph) {
  Small s;
  s.graph.add_output("y", s.z);
  EXPECT_EQ(fault(s.graph), "none");
}

TEST(GraphVerify, FindsFaultsOfOrder) {
  Small s;
  const std::vector<NodeId> order = s.graph.order();
  s.graph.set_order({order[0], order[2], order[1]});
  EXPECT_FAULT(s.graph, "reads a value before it is made");
  s.graph.set_order({order[0], order[1], order[1]});
  EXPECT_FAULT(s.graph, "stands twice in the order");
  s.graph.set_order({order[0], order[1]});
  s.graph.add_output("y", s.z);
  EXPECT_FAULT(s.graph, "output y has no producer");
}

TEST(GraphVerify, FindsFaultsOfValues) {
  Small s;
  s.graph.node(s.graph.order()[2]).outputs = {s.y};
  EXPECT_FAULT(s.graph, "lists an output it does not make");

  Small symbol;
  symbol.graph.add("relu", {symbol.x}, {DType::kF32, {"T"}});
  EXPECT_FAULT(symbol.graph, "dimension T of relu is not declared");
  symbol.graph.add_symbol("T", 4);
  EXPECT_EQ(fault(symbol.graph), "none");
  symbol.graph.add("relu", {symbol.x}, {DType::kF32, {-1}});
  EXPECT_FAULT(symbol.graph, "negative dimension");
}

TEST(GraphVerify, FindsFaultsOfNames) {
  Small twice;
  twice.graph.add_input("x", {DType::kF32, {2}});
  EXPECT_FAULT(twice.graph, "two inputs are called x");

  Small nameless;
  nameless.graph.add("weight", {}, {DType::kF32, {2}});
  EXPECT_FAULT(nameless.graph, "a leaf weight has no name");

  Small fed;
  Attrs attrs;
  attrs.set("name", std::string("w"));
  fed.graph.add("weight", {fed.x}, {DType::kF32, {2}}, attrs);
  EXPECT_FAULT(fed.graph, "must have no input");

  Small outputs;
  outputs.graph.add_output("y", outputs.y);
  outputs.graph.add_output("y", outputs.z);
  EXPECT_FAULT(outputs.graph, "two outputs are called y");
}

TEST(Graph, CountsUsesAndUsers) {
  Small s;
  const ValueId sum = s.graph.add("add", {s.y, s.y}, {DType::kF32, {2}});
  s.graph.add_output("y", s.y);
  EXPECT_EQ(s.graph.num_uses(s.y), 4);  // relu, add twice, the output
  EXPECT_EQ(s.graph.users(s.y).size(), 2u);
  s.graph.replace_uses(s.y, s.x);
  EXPECT_EQ(s.graph.num_uses(s.y), 0);
  EXPECT_EQ(s.graph.num_uses(s.x), 5);
  EXPECT_EQ(s.graph.outputs()[0].value, s.x);
  EXPECT_EQ(s.graph.producer(sum).inputs, (std::vector<ValueId>{s.x, s.x}));
}

}  // namespace
}  // namespace millrace::ir
