// Chains of launches (ops::Tactic::run_chain) on a GPU: what they write, and whole engines that run
// products so. Programs built without CUDA do not have these tests; without a GPU they fail.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "compiler/build.h"
#include "compiler/passes/plan_passes.h"
#include "device/device.h"
#include "engine/engine_file.h"
#include "millrace/generation_session.h"
#include "ops/harness/op_call.h"
#include "ops/matmul/matmul.h"
#include "ops/op.h"
#include "runtime/measure.h"

namespace millrace {
namespace {

using ops::HostTensor;

// All products in one launch, for up to 4 rows; one launch for each, for 5 to 128.
constexpr const char *kAsOne = "matmul_chain_cuda", *kSeries = "matmul_series_cuda";

const ops::Tactic& chain_tactic(std::string_view name = kAsOne) {
  for (const ops::Tactic& tactic : ops::find_op(ops::Matmul::kName)->tactics) {
    if (tactic.run_chain != nullptr && tactic.name == name) return tactic;
  }
  throw_failed("no tactic of matmul runs chains", "the test", "build with CUDA");
}

HostTensor normal(std::vector<int64_t> shape, double scale, ir::DType dtype, double mean = 0) {
  static std::mt19937 random(1);
  std::normal_distribution<double> numbers(mean, scale);
  std::vector<float> values(static_cast<size_t>(ops::Tensor(nullptr, dtype, shape).count()));
  for (float& value : values)
    value = static_cast<float>(numbers(random));
  return ops::host_floats(std::move(shape), values, dtype);
}

/// A product of a chain. Its inputs are tensors by name, of which each launch adds one.
struct Product {
  ops::Matmul attrs;
  std::vector<std::string> in;
  std::string out;
};

struct Products {
  ir::DType dtype = ir::DType::kBF16;
  std::map<std::string, HostTensor> inputs;
  std::vector<Product> launches;
  /// By the reference, each launch from what the reference made of those before it.
  std::map<std::string, HostTensor> expected;

  void add(Product product) {
    product.attrs.dtype = ir::dtype_name(dtype);
    std::vector<HostTensor> in;
    for (const std::string& name : product.in)
      in.push_back(inputs.contains(name) ? inputs.at(name) : expected.at(name));
    expected[product.out] = ops::call_op(ops::Matmul::kName, to_attrs(product.attrs), in).at(0);
    launches.push_back(std::move(product));
  }
  void add_weight(const std::string& name, int64_t n, int64_t k) {
    inputs[name] = normal({n, k}, 1 / std::sqrt(static_cast<double>(k)), dtype);
  }
};

struct Sizes {
  int64_t hidden, inner, qkv;
};

/// From the attention of one layer of a Llama to that of the next.
Products llama(ir::DType dtype, int64_t rows, const Sizes& s) {
  Products p;
  p.dtype = dtype;
  p.inputs["attention"] = normal({rows, s.hidden}, 1, dtype);
  p.inputs["residual"] = normal({rows, s.hidden}, 1, dtype);
  for (const char* norm : {"norm 1", "norm 2"})
    p.inputs[norm] = normal({s.hidden}, 0.1, dtype, 1);
  p.add_weight("o_proj", s.hidden, s.hidden);
  p.add_weight("gate_up", 2 * s.inner, s.hidden);
  p.add_weight("down_proj", s.hidden, s.inner);
  p.add_weight("qkv", s.qkv, s.hidden);
  p.add({{.residual = true}, {"attention", "o_proj", "residual"}, "a"});
  p.add({{.activation = "silu", .gated = true, .norm = "rms"}, {"a", "gate_up", "norm 1"}, "b"});
  p.add({{.residual = true}, {"b", "down_proj", "a"}, "c"});
  p.add({{.norm = "rms"}, {"c", "qkv", "norm 2"}, "d"});
  return p;
}

/// Which tensors lie in one place: as in an engine, where what is written takes the place of what
/// no later launch reads.
using Places = std::vector<std::vector<std::string>>;
const Places kShared = {{"attention", "b"}, {"residual", "c"}, {"a", "d"}};

/// The launches of a chain with their tensors on a device.
class OnDevice {
 public:
  OnDevice(const Products& products, device::Device& device, const Places& places = {},
           const char* tactic = kAsOne)
      : products_(products), device_(device), tactic_(chain_tactic(tactic)) {
    for (const std::vector<std::string>& names : places)
      allocate(names);
    for (const auto* tensors : {&products.inputs, &products.expected}) {
      for (const auto& [name, tensor] : *tensors) {
        if (!at_.contains(name)) allocate({name});
      }
    }
    int64_t workspace = 64;
    for (const Product& product : products.launches) {
      in_.emplace_back();
      for (const std::string& name : product.in)
        in_.back().push_back(tensor(name));
      out_.push_back(tensor(product.out));
      attributes_.push_back(product.attrs);
    }
    for (size_t i = 0; i < in_.size(); ++i) {
      launches_.push_back({.in = in_[i],
                           .out = {&out_[i], 1},
                           .attributes = &attributes_[i],
                           .workspace = nullptr,
                           .queue = &device.queue()});
      if (tactic_.workspace == nullptr) continue;
      workspace = std::max(workspace, tactic_.workspace(launches_[i], device.properties()));
    }
    workspace_ = device.allocate(workspace, "test");
    for (ops::Launch& launch : launches_)
      launch.workspace = workspace_->data();
  }

  /// Why a launch cannot be in a chain; empty if all can.
  std::string why_not() const {
    std::string all;
    for (const ops::Launch& launch : launches_) {
      if (tactic_.why_not != nullptr) all += tactic_.why_not(launch, device_.properties());
    }
    return all;
  }
  void enqueue() const { tactic_.run_chain(launches_); }
  /// Inputs as they are to be; garbage everywhere else.
  void reset() const {
    for (const auto& memory : memory_)
      fill_with_garbage(*memory);
    fill_with_garbage(*workspace_);
    for (const auto& [name, tensor] : products_.inputs) {
      device_.copy_to_device(at_.at(name), tensor.bytes.data(), std::ssize(tensor.bytes));
    }
    device_.synchronize();
  }
  HostTensor read(const std::string& name) const {
    HostTensor tensor = products_.expected.at(name);
    device_.copy_to_host(tensor.bytes.data(), at_.at(name), std::ssize(tensor.bytes));
    return tensor;
  }

 private:
  const HostTensor& host(const std::string& name) const {
    const auto it = products_.inputs.find(name);
    return it == products_.inputs.end() ? products_.expected.at(name) : it->second;
  }
  ops::Tensor tensor(const std::string& name) const {
    return {at_.at(name), host(name).dtype, host(name).shape};
  }
  void allocate(const std::vector<std::string>& names) {
    int64_t bytes = 0;
    for (const std::string& name : names)
      bytes = std::max(bytes, static_cast<int64_t>(host(name).bytes.size()));
    memory_.push_back(device_.allocate(bytes, "test"));
    for (const std::string& name : names)
      at_[name] = memory_.back()->data();
  }
  void fill_with_garbage(const device::Memory& memory) const {
    const std::vector<std::byte> garbage(static_cast<size_t>(memory.size()), std::byte{0xff});
    device_.copy_to_device(memory.data(), garbage.data(), memory.size());
  }

  const Products& products_;
  device::Device& device_;
  const ops::Tactic& tactic_;
  std::vector<std::unique_ptr<device::Memory>> memory_;
  std::unique_ptr<device::Memory> workspace_;
  std::map<std::string, std::byte*> at_;
  std::vector<std::vector<ops::Tensor>> in_;
  std::vector<ops::Tensor> out_;
  std::vector<ops::Matmul> attributes_;
  std::vector<ops::Launch> launches_;
};

/// Two results that are rounded from nearly the same number are a unit in the last place apart at
/// most. Behind the first launch some elements of x are, too: of K such errors, each below 2 u of
/// its element, 4 u of the outputs' size is far more than remains in the sum. What was read before
/// it was written is off by about the outputs' size itself.
void expect_close(const HostTensor& got, const HostTensor& want, size_t launch) {
  const double u = want.dtype == ir::DType::kBF16 ? 0x1p-8 : 0x1p-11;
  const std::vector<float> a = got.floats(), b = want.floats();
  double squares = 0, worst = 0;
  for (const float value : b)
    squares += double{value} * value;
  const double size = std::sqrt(squares / static_cast<double>(b.size()));
  for (size_t i = 0; i < b.size(); ++i) {
    const double allowed =
        2 * u * std::abs(b[i]) + (1e-4 + 4 * u * static_cast<double>(launch)) * size;
    const double error = std::abs(double{a[i]} - b[i]) / allowed;
    worst = std::isnan(error) ? HUGE_VAL : std::max(worst, error);
  }
  EXPECT_LE(worst, 1) << "launch " << launch << ", of what is allowed";
}

struct ChainCase {
  ir::DType dtype;
  int64_t rows;
  Sizes sizes;
  const char* tactic = kAsOne;
};

class ChainCudaTest : public testing::TestWithParam<ChainCase> {
 protected:
  void SetUp() override {
    ASSERT_EQ(device::cuda_unusable(), "") << "leave them out: --gtest_filter=-*ChainCuda*";
    device_ = device::make_cuda_device();
  }
  std::unique_ptr<device::Device> device_;
};

TEST_P(ChainCudaTest, AgreesWithTheReference) {
  const auto& [dtype, rows, sizes, tactic] = GetParam();
  const Products products = llama(dtype, rows, sizes);
  const OnDevice chain(products, *device_, {}, tactic);
  ASSERT_EQ(chain.why_not(), "");
  chain.reset();
  chain.enqueue();
  device_->synchronize();
  for (size_t i = 0; i < products.launches.size(); ++i) {
    const std::string& out = products.launches[i].out;
    expect_close(chain.read(out), products.expected.at(out), i);
  }
}

// Where a block that is ahead would overwrite what another one still reads.
TEST_P(ChainCudaTest, GivesTheSameBitsInSharedMemoryEveryTime) {
  const auto& [dtype, rows, sizes, tactic] = GetParam();
  const Products products = llama(dtype, rows, sizes);
  const OnDevice apart(products, *device_, {}, tactic), shared(products, *device_, kShared, tactic);
  ASSERT_EQ(shared.why_not(), "");
  apart.reset();
  apart.enqueue();
  device_->synchronize();
  const HostTensor c = apart.read("c"), d = apart.read("d");
  shared.reset();
  shared.enqueue();  // loads the kernel
  const auto graph = device_->capture([&] { shared.enqueue(); });
  for (int run = 0; run < 50; ++run) {
    shared.reset();
    graph->replay();
    device_->synchronize();
    ASSERT_EQ(shared.read("c").bytes, c.bytes) << "run " << run;
    ASSERT_EQ(shared.read("d").bytes, d.bytes) << "run " << run;
  }
}

std::vector<ChainCase> chain_cases() {
  std::vector<ChainCase> cases;
  for (const ir::DType dtype : {ir::DType::kBF16, ir::DType::kF16}) {
    for (const int64_t rows : {1, 2, 3, 4}) {
      cases.push_back({dtype, rows, {256, 512, 384}});
      if (dtype == ir::DType::kBF16) cases.push_back({dtype, rows, {1024, 2816, 1536}});
    }
  }
  return cases;
}

// All shapes of both kernels, whole and not.
std::vector<ChainCase> series_cases() {
  std::vector<ChainCase> cases;
  for (const int64_t rows : {5, 8, 13, 16, 17, 32, 33, 64, 100, 128}) {
    for (const Sizes& sizes : {Sizes{256, 512, 384}, Sizes{1024, 2816, 1544}})
      cases.push_back({ir::DType::kBF16, rows, sizes, kSeries});
  }
  cases.push_back({ir::DType::kBF16, 8, {2048, 5632, 2560}, kSeries});
  cases.push_back({ir::DType::kBF16, 128, {2048, 5632, 2560}, kSeries});
  return cases;
}

std::string name_of(const testing::TestParamInfo<ChainCase>& made) {
  const ChainCase& c = made.param;
  return str(ir::dtype_name(c.dtype), "_", c.rows, "_", c.sizes.hidden);
}

INSTANTIATE_TEST_SUITE_P(Llama, ChainCudaTest, testing::ValuesIn(chain_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Series, ChainCudaTest, testing::ValuesIn(series_cases()), name_of);

class ChainCudaLengthTest : public testing::TestWithParam<int> {};

TEST_P(ChainCudaLengthTest, AgreesWithTheReference) {
  ASSERT_EQ(device::cuda_unusable(), "");
  const auto device = device::make_cuda_device();
  Products products;
  products.inputs["x0"] = normal({2, 512}, 1, products.dtype);
  for (int i = 0; i < GetParam(); ++i) {
    products.add_weight(str("w", i), 512, 512);
    products.add({{}, {str("x", i), str("w", i)}, str("x", i + 1)});
  }
  const OnDevice chain(products, *device);
  ASSERT_EQ(chain.why_not(), "");
  for (int run = 0; run < 3; ++run) {  // the next chain begins where the last one ends
    chain.reset();
    chain.enqueue();
    device->synchronize();
    for (int i = 0; i < GetParam(); ++i) {
      const std::string out = str("x", i + 1);
      expect_close(chain.read(out), products.expected.at(out), static_cast<size_t>(i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(UpToTheMost, ChainCudaLengthTest, testing::Range(1, ops::kMaxChain + 1));

// Blocks of a chain wait for each other, and two chains for the same multiprocessors.
TEST(ChainCudaQueueTest, TwoChainsAtOnce) {
  ASSERT_EQ(device::cuda_unusable(), "");
  const Products products = llama(ir::DType::kBF16, 3, {1024, 2816, 1536});
  const auto work = [&](int* wrong) {
    const auto device = device::make_cuda_device();
    const OnDevice chain(products, *device);
    std::vector<std::byte> first;
    for (int run = 0; run < 50; ++run) {
      chain.reset();
      chain.enqueue();
      device->synchronize();
      const HostTensor d = chain.read("d");
      if (run == 0) first = d.bytes;
      *wrong += d.bytes != first ? 1 : 0;
    }
    expect_close(chain.read("d"), products.expected.at("d"), 3);
  };
  int wrong = 0, other_wrong = 0;
  std::thread other(work, &other_wrong);
  work(&wrong);
  other.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(other_wrong, 0);
}

constexpr int kLayers = 2, kVocabulary = 512;

/// A chain's tactic, and a session whose steps it can run: of so many requests, with as many tokens
/// of prompts in a step.
struct EngineCase {
  const char* tactic;
  int requests, prompt_rows;
};

engine::Engine small_engine(const EngineCase& made, device::Device& device) {
  const HfConfig config = HfConfig::parse(
      str(R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
              "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
              "rms_norm_eps": 1e-5, "num_hidden_layers": )",
          kLayers, R"(, "vocab_size": )", kVocabulary, "}"),
      "config.json");
  compiler::BuildOptions options;
  options.dtype = compiler::ComputeType::kBf16;
  options.dummy_seed = 1;
  options.max_batch_size = made.prompt_rows;
  options.max_num_tokens = made.prompt_rows;
  options.profile = false;
  compiler::BuildReport report;
  return compiler::build_engine({.model = "small", .config = config}, options, device, &report);
}

struct Decoded {
  std::map<std::pair<int, int>, std::vector<float>> logits;  // by sequence and position
  std::vector<int> launches;                                 // by step
  int64_t captures = 0;
  std::vector<int> with_next;  // of a step of all sequences but one, where it is not 0
};

// Prompts that come in steps of a few tokens, then steps of all sequences, whatever the logits say:
// so these are of the same ids in every engine.
Decoded decode(const EngineCase& made, const engine::Engine& engine, const std::string& path) {
  engine::write_engine(engine, path, nullptr);
  EngineOptions open;
  open.device = "cuda";
  const std::shared_ptr<Engine> opened = Engine::open(path, open);
  GenerationSession session(opened);
  session.setup({.batch_size = made.requests, .max_context_length = 20, .max_new_tokens = 12});
  std::vector<GenerationRequest> requests(static_cast<size_t>(made.requests));
  for (int r = 0; r < made.requests; ++r) {
    for (int i = 0; i < 5 + 7 * (r % 3); ++i)
      requests[static_cast<size_t>(r)].input_ids.push_back((37 * i + 101 * r) % kVocabulary);
    SamplingParams& sampling = requests[static_cast<size_t>(r)].sampling;
    sampling.max_new_tokens = 12;
    sampling.ignore_eos = true;
    sampling.logit_bias = {{7 + r, 100}};
  }
  Decoded decoded;
  DecodeOptions options;
  options.prompt_logits = true;
  options.logits = [&](int sequence, int position, int rows, std::span<const float> logits) {
    for (int i = 0; i < rows; ++i) {
      const auto row = logits.subspan(static_cast<size_t>(i) * kVocabulary, kVocabulary);
      decoded.logits[{sequence, position + i}].assign(row.begin(), row.end());
    }
  };
  const std::vector<GenerationOutput> outputs = session.decode(requests, options);
  for (int r = 0; r < made.requests; ++r)
    EXPECT_EQ(outputs[static_cast<size_t>(r)].output_ids, std::vector<int32_t>(12, 7 + r));
  const SessionStats stats = session.stats();
  for (const StepTimes& step : stats.step_times)
    decoded.launches.push_back(step.launches);
  decoded.captures = stats.captures;
  const runtime::MeasureOptions most{.regime = runtime::Regime::kGeneration,
                                     .rows = made.requests - 1};
  for (const runtime::MeasuredLaunch& launch : runtime::measure_step(opened->loaded(), most)) {
    if (launch.with_next > 0) decoded.with_next.push_back(launch.with_next);
  }
  return decoded;
}

class ChainCudaEngineTest : public testing::TestWithParam<EngineCase> {};

// Between them lie some 8 roundings a layer to bf16, of u = 2^-8 each.
TEST_P(ChainCudaEngineTest, GivesTheLogitsOfSingleLaunches) {
  ASSERT_EQ(device::cuda_unusable(), "");
  const auto device = device::make_cuda_device();
  const EngineCase made = GetParam();
  engine::Engine engine = small_engine(made, *device);
  const std::string path = testing::TempDir() + "/" + made.tactic + ".engine";
  const Decoded alone = decode(made, engine, path);
  compiler::select_chains(
      engine,
      [&](const compiler::Problem& problem) {
        const bool is_product = problem.op == ops::find_op(ops::Matmul::kName);
        const ops::Tactic& tactic = chain_tactic(made.tactic);
        return is_product && tactic.why_not(problem.launch(), device->properties()).empty()
                   ? &tactic
                   : nullptr;
      },
      [](const compiler::Chain&) { return true; });
  compiler::plan_memory(engine, device->properties());
  compiler::verify_memory_plan(engine);
  const Decoded chained = decode(made, engine, path);
  std::filesystem::remove(path);
  EXPECT_EQ(alone.with_next, std::vector<int>());
  EXPECT_EQ(chained.with_next, std::vector<int>(kLayers, 3));

  // A layer's last three products go with the first of the next one, or with the head, which steps
  // that only take in a part of a prompt leave out.
  ASSERT_EQ(chained.launches.size(), alone.launches.size());
  for (size_t i = 0; i < alone.launches.size(); ++i) {
    const int fewer = alone.launches[i] - chained.launches[i];
    if (made.tactic == kAsOne)
      EXPECT_TRUE(fewer == 3 * kLayers || fewer == 3 * (kLayers - 1)) << fewer << ", step " << i;
    else
      EXPECT_GE(fewer, 0) << "step " << i;  // some have too few rows
  }
  EXPECT_EQ(alone.launches.back() - chained.launches.back(), 3 * kLayers);
  EXPECT_GT(chained.captures, 0);
  ASSERT_EQ(chained.logits.size(), alone.logits.size());
  for (const auto& [at, want] : alone.logits) {
    const std::vector<float>& got = chained.logits.at(at);
    float largest = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::abs(want[i]));
      worst = std::max(worst, std::abs(got[i] - want[i]));
    }
    EXPECT_LT(largest, 50);  // not biased
    EXPECT_LE(worst, 8 * kLayers * 0x1p-8 * largest)
        << "sequence " << at.first << ", position " << at.second;
  }
}

INSTANTIATE_TEST_SUITE_P(Tactics, ChainCudaEngineTest,
                         testing::Values(EngineCase{kAsOne, 3, 4}, EngineCase{kSeries, 7, 8}),
                         [](const auto& made) { return std::string(made.param.tactic); });

}  // namespace
}  // namespace millrace
