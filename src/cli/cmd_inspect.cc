// millrace inspect: what a model folder or an engine file holds.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "api/model_source.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "engine/engine_file.h"
#include "runtime/kv_pool.h"
#include "runtime/weights.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectOptions {
  std::string model;
  bool verify = false, json = false;
};

Json inspect_folder(const std::string& model, bool verify) {
  const api::ModelSource source = api::ModelSource::open(model, false);
  Json tensors = Json::array();
  int64_t parameters = 0;
  for (const CheckpointTensor& t : source.checkpoint->tensors()) {
    tensors.push_back({{"name", t.name}, {"dtype", ir::dtype_name(t.dtype)}, {"shape", t.shape}});
    parameters += t.count();
  }
  Json out = {{"kind", "folder"},         {"architecture", source.config.architecture()},
              {"parameters", parameters}, {"tensors", std::move(tensors)},
              {"limits", nullptr},        {"plan", nullptr},
              {"provenance", nullptr}};
  if (verify) {
    // Reads every byte; a file that fails or is cut short is found here.
    uint64_t sum = 0;
    for (const CheckpointTensor& t : source.checkpoint->tensors()) {
      for (size_t i = 0; i < t.bytes.size(); i += 4096)
        sum += static_cast<uint64_t>(t.bytes[i]);
    }
    source.checkpoint->check_intact();
    out["verified"] = sum < UINT64_MAX;
  }
  return out;
}

Json inspect_engine(const std::string& path, bool verify) {
  const auto file = engine::EngineFile::open(path);
  const engine::Engine& e = file->engine();
  const engine::Manifest& m = e.manifest;
  Json tensors = Json::array();
  int64_t weights = 0;
  for (const engine::Weight& w : e.weights) {
    tensors.push_back({{"name", w.name}, {"dtype", ir::dtype_name(w.dtype)}, {"shape", w.shape}});
    weights += runtime::weight_bytes(w);
  }
  int64_t kv_token = 0;
  for (const engine::KvGroup& g : e.kv_groups) {
    if (g.cross) continue;  // made of the encoder's rows, not of tokens
    kv_token += runtime::kv_block_bytes(g, 64, *ir::parse_dtype(m.kv_dtype)) / 64;
  }
  Json out = {{"kind", "engine"},
              {"architecture", m.architecture},
              {"parameters", m.parameters},
              {"tensors", std::move(tensors)},
              {"limits",
               {{"max_batch_size", m.max_batch_size},
                {"max_seq_len", m.max_seq_len},
                {"max_num_tokens", m.max_num_tokens}}},
              {"plan",
               {{"weights", weights},
                {"context_arena", e.regimes[0].arena_bytes},
                {"generation_arena", e.regimes[1].arena_bytes},
                {"kv_cache_per_token", kv_token},
                {"launches", static_cast<int64_t>(e.launches.size())}}},
              {"provenance",
               {{"model", m.model},
                {"version", m.version},
                {"commit", m.commit},
                {"dtype", m.dtype},
                {"kv_dtype", m.kv_dtype},
                {"device", m.device},
                {"device_name", m.device_name},
                {"isa", m.isa},
                {"options", m.options},
                {"source", m.source}}}};
  if (verify) {
    if (file->weights_bytes() > 0) file->verify_weights(0, file->weights_bytes());
    const runtime::WeightReader reader(file);  // referenced files: still those it was built from
    reader.check_intact();
    out["verified"] = true;
  }
  return out;
}

void print_object(const char* title, const Json& object) {
  if (object.is_null()) return;
  std::printf("%s\n", title);
  for (const auto& [key, value] : object.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : json_line(value);
    const bool bytes = key.find("arena") != std::string::npos || key == "weights";
    std::printf("  %-20s %s\n", key.c_str(),
                bytes ? format_bytes(value.get<int64_t>()).c_str() : text.c_str());
  }
}

int run(const InspectOptions& o) {
  const bool is_file = std::filesystem::is_regular_file(o.model);
  const Json out = is_file ? inspect_engine(o.model, o.verify) : inspect_folder(o.model, o.verify);
  if (o.json) {
    std::puts(json_line(out).c_str());
    return 0;
  }
  std::printf("%s: %s, %.2f M parameters, %zu tensors\n", o.model.c_str(),
              out["architecture"].get<std::string>().c_str(),
              static_cast<double>(out["parameters"].get<int64_t>()) / 1e6, out["tensors"].size());
  print_object("limits", out["limits"]);
  print_object("plan", out["plan"]);
  print_object("provenance", out["provenance"]);
  std::printf("tensors\n");
  for (const Json& t : out["tensors"]) {
    std::printf("  %-5s %-18s %s\n", t["dtype"].get<std::string>().c_str(),
                json_line(t["shape"]).c_str(), t["name"].get<std::string>().c_str());
  }
  if (o.verify) std::printf("verified: every byte of the weights was read\n");
  return 0;
}

}  // namespace

void add_inspect(Program& program) {
  auto options = std::make_shared<InspectOptions>();
  Command command = program.command("inspect", "architecture, tensors, limits, plan, provenance");
  command.positional("MODEL", &options->model, "a model folder, hub id or engine file")
      .flag("--verify", &options->verify, "read and check every byte of the weights")
      .flag("--json", &options->json, "as JSON");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
