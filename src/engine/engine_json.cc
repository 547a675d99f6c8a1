#include "engine/engine_json.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace millrace::engine {
namespace {

using Json = nlohmann::ordered_json;

// A number for a field that does not hold all of them: the library would cut off what does not fit,
// and what is left could be valid.
int32_t int32_from(const Json& j) {
  const bool fits = j.is_number_unsigned() ? std::in_range<int32_t>(j.get<uint64_t>())
                                           : std::in_range<int32_t>(j.get<int64_t>());
  if (!fits) throw_bad_input(str("the plan of the engine holds a number out of range: ", j.dump()));
  return j.get<int32_t>();
}

Json to_json(const Manifest& m) {
  return {{"model", m.model},
          {"architecture", m.architecture},
          {"version", m.version},
          {"commit", m.commit},
          {"dtype", m.dtype},
          {"kv_dtype", m.kv_dtype},
          {"device", m.device},
          {"device_name", m.device_name},
          {"isa", m.isa},
          {"options", m.options},
          {"source", m.source},
          {"vocab_size", m.vocab_size},
          {"max_positions", m.max_positions},
          {"parameters", m.parameters},
          {"max_batch_size", m.max_batch_size},
          {"max_beam_width", m.max_beam_width},
          {"max_seq_len", m.max_seq_len},
          {"max_num_tokens", m.max_num_tokens},
          {"untimed", m.untimed},
          {"kind", model_kind_name(m.kind)},
          {"max_encoder_len", m.max_encoder_len},
          {"encoder_features", m.encoder_features}};
}

ModelKind kind_from(const Json& j) {
  for (const auto kind : {ModelKind::kDecoder, ModelKind::kEncoderDecoder, ModelKind::kEncoder}) {
    if (j == model_kind_name(kind)) return kind;
  }
  throw_bad_input(str("unknown kind of model ", j.dump()));
}

Manifest manifest_from(const Json& j) {
  return {.model = j.at("model"),
          .architecture = j.at("architecture"),
          .version = j.at("version"),
          .commit = j.at("commit"),
          .dtype = j.at("dtype"),
          .kv_dtype = j.at("kv_dtype"),
          .device = j.at("device"),
          .device_name = j.at("device_name"),
          .isa = j.at("isa"),
          .options = j.at("options"),
          .source = j.at("source"),
          .vocab_size = j.at("vocab_size"),
          .max_positions = j.at("max_positions"),
          .parameters = j.at("parameters"),
          .max_batch_size = j.at("max_batch_size"),
          .max_beam_width = j.at("max_beam_width"),
          .max_seq_len = j.at("max_seq_len"),
          .max_num_tokens = j.at("max_num_tokens"),
          .untimed = j.at("untimed"),
          .kind = kind_from(j.at("kind")),
          .max_encoder_len = j.at("max_encoder_len"),
          .encoder_features = j.at("encoder_features")};
}

// Buffers are written as pairs [offset, bytes]: there are thousands.
Json to_json(const std::vector<PlannedBuffer>& buffers) {
  Json list = Json::array();
  for (const PlannedBuffer& b : buffers)
    list.push_back(Json::array({b.offset, b.bytes}));
  return list;
}

std::vector<PlannedBuffer> buffers_from(const Json& list) {
  std::vector<PlannedBuffer> buffers;
  for (const Json& pair : list)
    buffers.push_back({pair.at(0), pair.at(1)});
  return buffers;
}

Json to_json(const PlannedLaunch& launch) {
  Json choices = Json::array();
  for (const TacticChoice& c : launch.choices)
    choices.push_back(Json::array({c.max_rows, c.tactic}));
  return {{"node", launch.node}, {"choices", std::move(choices)}};
}

PlannedLaunch launch_from(const Json& j) {
  PlannedLaunch launch{.node = int32_from(j.at("node")), .choices = {}};
  for (const Json& pair : j.at("choices"))
    launch.choices.push_back({pair.at(0), pair.at(1)});
  return launch;
}

Json to_json(const RegimePlan& r) {
  Json maxima = Json::object();
  for (const ir::Symbol& s : r.maxima)
    maxima[s.name] = s.max;
  return {{"name", r.name},
          {"maxima", std::move(maxima)},
          {"arena_bytes", r.arena_bytes},
          {"values", to_json(r.values)},
          {"workspaces", to_json(r.workspaces)}};
}

RegimePlan regime_from(const Json& j) {
  RegimePlan r{.name = j.at("name"),
               .maxima = {},
               .arena_bytes = j.at("arena_bytes"),
               .values = buffers_from(j.at("values")),
               .workspaces = buffers_from(j.at("workspaces"))};
  for (const auto& [name, max] : j.at("maxima").items())
    r.maxima.push_back({name, max});
  return r;
}

Json to_json(const KvGroup& g) {
  return {{"kv_heads", g.kv_heads}, {"k_size", g.k_size},           {"v_size", g.v_size},
          {"window", g.window},     {"sink_tokens", g.sink_tokens}, {"layers", g.layers},
          {"cross", g.cross}};
}

KvGroup group_from(const Json& j) {
  return {.kv_heads = int32_from(j.at("kv_heads")),
          .k_size = int32_from(j.at("k_size")),
          .v_size = int32_from(j.at("v_size")),
          .window = int32_from(j.at("window")),
          .sink_tokens = int32_from(j.at("sink_tokens")),
          .layers = j.at("layers"),
          .cross = j.at("cross")};
}

ir::DType dtype_from(const Json& j) {
  const auto name = j.get<std::string>();
  const auto dtype = ir::parse_dtype(name);
  if (!dtype || *dtype == ir::DType::kState) throw_bad_input(str("unknown element type ", name));
  return *dtype;
}

Json to_json(const Weight& w) {
  Json slices = Json::array();
  for (const WeightSlice& s : w.slices) {
    Json slice = {{"file", s.file},
                  {"offset", s.offset},
                  {"rows", s.rows},
                  {"row_bytes", s.row_bytes},
                  {"dtype", ir::dtype_name(s.dtype)},
                  {"tensor", s.tensor}};
    if (s.rows != s.tensor_rows) {
      slice["first_row"] = s.first_row;
      slice["tensor_rows"] = s.tensor_rows;
    }
    slices.push_back(std::move(slice));
  }
  Json weight = {{"name", w.name},
                 {"shape", w.shape},
                 {"dtype", ir::dtype_name(w.dtype)},
                 {"transposed", w.transposed},
                 {"slices", std::move(slices)}};
  if (w.unit_rows) weight["unit_rows"] = true;
  return weight;
}

Weight weight_from(const Json& j) {
  Weight w{.name = j.at("name"),
           .shape = j.at("shape"),
           .dtype = dtype_from(j.at("dtype")),
           .transposed = j.at("transposed"),
           .slices = {},
           .unit_rows = j.value("unit_rows", false)};
  for (const Json& s : j.at("slices")) {
    w.slices.push_back({.file = int32_from(s.at("file")),
                        .offset = s.at("offset"),
                        .rows = s.at("rows"),
                        .row_bytes = s.at("row_bytes"),
                        .dtype = dtype_from(s.at("dtype")),
                        .tensor = s.at("tensor"),
                        .first_row = s.value("first_row", int64_t{0}),
                        .tensor_rows = s.value("tensor_rows", s.at("rows").get<int64_t>())});
  }
  return w;
}

Json to_json(const SourceFile& f) {
  try {
    (void)Json(f.path).dump();
  } catch (const Json::exception&) {  // it would be stored as another path
    throw_bad_input("the path of the weights is not UTF-8", f.path,
                    "rename the folder, or build an engine file with `millrace build`");
  }
  return {
      {"path", f.path}, {"size", f.size}, {"mtime_ns", f.mtime_ns}, {"header_hash", f.header_hash}};
}

SourceFile file_from(const Json& j) {
  return {.path = j.at("path"),
          .size = j.at("size"),
          .mtime_ns = j.at("mtime_ns"),
          .header_hash = j.at("header_hash")};
}

Json to_json(const CaptureRegion& c) {
  return {{"begin", c.begin}, {"end", c.end}, {"capturable", c.capturable}};
}

CaptureRegion capture_from(const Json& j) {
  return {.begin = int32_from(j.at("begin")),
          .end = int32_from(j.at("end")),
          .capturable = j.at("capturable")};
}

template <typename T>
Json list_to_json(const std::vector<T>& items) {
  Json list = Json::array();
  for (const T& item : items)
    list.push_back(to_json(item));
  return list;
}

template <typename Read>
auto list_from(const Json& list, Read read) {
  std::vector<decltype(read(list))> items;
  for (const Json& item : list)
    items.push_back(read(item));
  return items;
}

Json plan_of(const PlannedGraph& planned) {
  return {{"launches", list_to_json(planned.launches)},
          {"regimes", list_to_json(planned.regimes)},
          {"captures", list_to_json(planned.captures)},
          {"head_begin", planned.head_begin}};
}

void read_plan(const Json& j, PlannedGraph* planned) {
  planned->launches = list_from(j.at("launches"), launch_from);
  planned->regimes = list_from(j.at("regimes"), regime_from);
  planned->captures = list_from(j.at("captures"), capture_from);
  planned->head_begin = int32_from(j.at("head_begin"));
}

// A plan has no others, and the conversion of large ones to integers is undefined.
bool whole_numbers_only(int, Json::parse_event_t, const Json& value) {
  if (value.is_number_float()) throw_bad_input("the plan of the engine holds a broken number");
  return true;
}

}  // namespace

std::string plan_to_json(const Engine& engine, const std::vector<uint64_t>& chunk_hashes) {
  Json assets = Json::array();
  for (const Asset& a : engine.assets) {
    assets.push_back({{"name", a.name}, {"bytes", a.bytes.size()}});
  }
  Json j = {{"manifest", to_json(engine.manifest)}};
  j.update(plan_of(engine));
  j["encoder"] = nullptr;
  if (engine.encoder) {
    j["encoder"] = plan_of(*engine.encoder);
    j["encoder"]["graph_offset"] = print(engine.graph).size();
  }
  j.update({{"kv_groups", list_to_json(engine.kv_groups)},
            {"weights", list_to_json(engine.weights)},
            {"files", list_to_json(engine.files)},
            {"dummy_weights", engine.dummy_weights},
            {"dummy_seed", engine.dummy_seed},
            {"assets", std::move(assets)},
            {"chunk_hashes", chunk_hashes}});
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void plan_from_json(std::string_view text, Engine* engine, PlanParts* parts) {
  try {
    const Json j = Json::parse(text, whole_numbers_only);
    engine->manifest = manifest_from(j.at("manifest"));
    read_plan(j, engine);
    const Json& encoder = j.at("encoder");
    if (!encoder.is_null()) {
      read_plan(encoder, &engine->encoder.emplace());
      parts->encoder_graph_offset = encoder.at("graph_offset");
    }
    engine->kv_groups = list_from(j.at("kv_groups"), group_from);
    engine->weights = list_from(j.at("weights"), weight_from);
    engine->files = list_from(j.at("files"), file_from);
    engine->dummy_weights = j.at("dummy_weights");
    engine->dummy_seed = j.at("dummy_seed");
    for (const Json& a : j.at("assets")) {
      engine->assets.push_back({a.at("name"), ""});
      parts->asset_sizes.push_back(a.at("bytes"));
    }
    parts->chunk_hashes = j.at("chunk_hashes").get<std::vector<uint64_t>>();
  } catch (const Json::exception& error) {
    throw_bad_input(str("the plan of the engine cannot be read: ", error.what()));
  }
}

}  // namespace millrace::engine
