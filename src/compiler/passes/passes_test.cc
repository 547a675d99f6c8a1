// Every pass on the graphs of testdata/NAME.ir. A file is a list of graphs, each under a line that
// begins with
//   // input       followed by   // expect      what the pass makes of it
//   // unchanged   a near miss that it leaves alone
#include "compiler/passes/passes.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "base/error.h"
#include "compiler/pass.h"
#include "compiler/pipeline.h"

namespace millrace::compiler {
namespace {

struct Block {
  std::string kind, text;
  int line = 0;
};

std::vector<Block> read_blocks(const std::string& name) {
  std::ifstream in(std::string(MILLRACE_SOURCE_DIR "/src/compiler/passes/testdata/") + name +
                   ".ir");
  std::vector<Block> blocks;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.starts_with("// ")) {
      blocks.push_back({line.substr(3, line.find_first_of(":", 3) - 3), "", number});
    } else {
      blocks.at(blocks.size() - 1).text += line + "\n";
    }
  }
  return blocks;
}

std::string apply(const Pass& pass, const Block& block) {
  ir::Graph graph = ir::parse(block.text, str(pass.name, ".ir:", block.line));
  verify_ops(graph, "the test's input");
  pass.run(graph);
  verify_ops(graph, pass.name);
  return print(graph);
}

class PassText : public testing::TestWithParam<Pass> {};

TEST_P(PassText, RewritesAsItSays) {
  const Pass& pass = GetParam();
  const std::vector<Block> blocks = read_blocks(pass.name);
  int inputs = 0, unchanged = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    SCOPED_TRACE(str(pass.name, ".ir:", blocks[i].line));
    if (blocks[i].kind == "input") {
      ++inputs;
      ASSERT_LT(i + 1, blocks.size());
      ASSERT_EQ(blocks[i + 1].kind, "expect");
      EXPECT_EQ(apply(pass, blocks[i]), blocks[i + 1].text);
    } else if (blocks[i].kind == "unchanged") {
      ++unchanged;
      EXPECT_EQ(apply(pass, blocks[i]), blocks[i].text);
    }
  }
  EXPECT_GT(inputs, 0);
  EXPECT_GT(unchanged, 0);
}

// One entry a name: final_order is canonicalize again.
std::vector<Pass> passes() {
  std::vector<Pass> all = pipeline();
  std::erase_if(all, [](const Pass& p) { return std::string(p.name) == "final_order"; });
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, PassText, testing::ValuesIn(passes()),
                         [](const auto& made) { return std::string(made.param.name); });

std::string error_of(const PassOptions& options) {
  ir::Graph graph =
      ir::parse("graph g { dim T <= 4 %0: f32[T, 2] = input() {name=\"x\"} return y=%0 }");
  try {
    run_passes(graph, pipeline(), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RunPasses, RefusesUnknownAndNeededNames) {
  EXPECT_NE(error_of({.dump_folder = "", .disabled = {"fuse_everything"}}).find("fuse_everything"),
            std::string::npos);
  EXPECT_NE(error_of({.dump_folder = "", .disabled = {"lower_attention"}}).find("is needed"),
            std::string::npos);
  EXPECT_EQ(error_of({.dump_folder = "", .disabled = {"merge_qkv"}}), "");
}

// A name is known on every device, so that one command line serves all.
TEST(RunPasses, LeavesPassesForCudaOutOnACpu) {
  const auto names = [](device::Kind kind) {
    ir::Graph graph =
        ir::parse("graph g { dim T <= 4 %0: f32[T, 2] = input() {name=\"x\"} return y=%0 }");
    std::vector<std::string> ran;
    for (const PassTime& pass :
         run_passes(graph, pipeline(), {.dump_folder = "", .disabled = {}, .device = kind})) {
      ran.push_back(pass.name);
    }
    return ran;
  };
  const auto on_cpu = names(device::Kind::kCpu), on_cuda = names(device::Kind::kCuda);
  EXPECT_EQ(std::count(on_cpu.begin(), on_cpu.end(), "fuse_gated_matmul"), 0);
  EXPECT_EQ(std::count(on_cuda.begin(), on_cuda.end(), "fuse_gated_matmul"), 1);
  EXPECT_EQ(error_of({.dump_folder = "", .disabled = {"fuse_gated_matmul"}}), "");
}

TEST(RunPasses, RoundsXOnACpuWhereItMay) {
  const auto rounds = [](device::Kind kind, bool may_round_x) {
    ir::Graph graph = ir::parse(
        "graph g { dim T <= 4 %0: f32[T, 2] = input() {name=\"x\"} %1: bf16[2, 2] = weight() "
        "{name=\"w\"} %2: f32[T, 2] = matmul(%0, %1) return y=%2 }");
    run_passes(graph, pipeline(),
               {.dump_folder = "", .disabled = {}, .device = kind, .may_round_x = may_round_x});
    return print(graph).find("bf16_products=true") != std::string::npos;
  };
  EXPECT_TRUE(rounds(device::Kind::kCpu, true));
  EXPECT_FALSE(rounds(device::Kind::kCpu, false));
  EXPECT_FALSE(rounds(device::Kind::kCuda, true));
}

TEST(RunPasses, DumpsTheGraphAfterEachPassThatChangedIt) {
  const std::string folder = testing::TempDir() + "/passes_dump";
  std::filesystem::remove_all(folder);
  ir::Graph graph = ir::parse(
      "graph g { dim T <= 4 %0: f32[T, 2] = input() {name=\"x\"} %1: f32[T, 2] = add(%0, %0) "
      "return y=%0 }");
  run_passes(graph, pipeline(), {.dump_folder = folder, .disabled = {}});
  EXPECT_TRUE(std::filesystem::exists(folder + "/00_traced.ir"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/02_remove_dead.ir"));
  EXPECT_FALSE(std::filesystem::exists(folder + "/04_merge_qkv.ir"));
}

}  // namespace
}  // namespace millrace::compiler
