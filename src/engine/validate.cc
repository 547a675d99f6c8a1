#include "engine/validate.h"

#include <algorithm>
#include <limits>
#include <set>

#include "base/error.h"

namespace millrace::engine {
namespace {

bool is_kv_type(const std::string& name) {
  const auto dtype = ir::parse_dtype(name);
  return dtype == ir::DType::kF32 || dtype == ir::DType::kBF16 || dtype == ir::DType::kF16 ||
         dtype == ir::DType::kF8E4M3 || dtype == ir::DType::kI8;
}

class Validator {
 public:
  Validator(const Engine& engine, int64_t packed_bytes, const std::string& where)
      : e_(engine), packed_bytes_(packed_bytes), where_(where) {}

  void run() {
    const Manifest& m = e_.manifest;
    for (const int64_t limit : {m.vocab_size, m.max_positions, m.max_batch_size, m.max_beam_width,
                                m.max_seq_len, m.max_num_tokens}) {
      require(limit > 0 && limit <= std::numeric_limits<int32_t>::max(), "a limit out of range");
    }
    require(m.max_encoder_len >= 0 && m.max_encoder_len <= std::numeric_limits<int32_t>::max() &&
                m.encoder_features >= 0 && m.encoder_features < 1 << 20,
            "a limit out of range");
    require(e_.encoder.has_value() == (m.kind == ModelKind::kEncoderDecoder) &&
                (m.max_encoder_len > 0) == e_.encoder.has_value(),
            "a kind of model that its graphs are not");
    check(e_, 2, "not two regimes");
    if (e_.encoder) {
      check(*e_.encoder, 1, "an encoder without its one regime");
      check_states(e_.encoder->graph);
    }
    require(is_kv_type(m.kv_dtype), "a KV cache of no known type");
    for (const KvGroup& group : e_.kv_groups)
      check(group);
    for (const Weight& weight : e_.weights)
      check(weight);
  }

 private:
  void check(const PlannedGraph& planned, size_t regimes, const char* otherwise) {
    launches(planned);
    require(planned.regimes.size() == regimes, otherwise);
    for (const RegimePlan& regime : planned.regimes)
      check(planned, regime);
  }

  // The encoder writes caches that the decoder's graph has.
  void check_states(const ir::Graph& graph) {
    for (const ir::NodeId id : graph.order()) {
      const ir::Node& node = graph.node(id);
      if (node.op != ir::kInputOp || graph.type(node.outputs[0]).dtype != ir::DType::kState)
        continue;
      const auto& name = std::get<std::string>(*node.attrs.find("name"));
      bool known = false;
      for (const KvGroup& group : e_.kv_groups) {
        known = known || (group.cross && std::find(group.layers.begin(), group.layers.end(),
                                                   name) != group.layers.end());
      }
      require(known, "an encoder that writes a cache which the decoder does not have");
    }
  }

  void launches(const PlannedGraph& planned) {
    const auto nodes = static_cast<int64_t>(planned.graph.order().size());
    int64_t last = -1;
    for (const PlannedLaunch& launch : planned.launches) {
      require(launch.node > last && launch.node < nodes, "a launch of no node");
      last = launch.node;
      require(!launch.choices.empty(), "a launch without a tactic");
      int64_t rows = 0;
      for (const TacticChoice& choice : launch.choices) {
        require(choice.max_rows > rows, "tactic buckets out of order");
        rows = choice.max_rows;
      }
    }
    const auto count = static_cast<int32_t>(planned.launches.size());
    require(planned.head_begin >= 0 && planned.head_begin <= count, "a head beyond the launches");
    int32_t next = 0;
    for (const CaptureRegion& region : planned.captures) {
      require(region.begin == next && region.end > next && region.end <= count,
              "capture regions that do not follow each other");
      next = region.end;
    }
  }

  void check(const PlannedGraph& planned, const RegimePlan& regime) {
    require(static_cast<int64_t>(regime.values.size()) == planned.graph.num_values(),
            "a memory plan for another graph");
    require(regime.workspaces.size() == planned.launches.size(),
            "a memory plan for other launches");
    require(regime.arena_bytes >= 0 && regime.arena_bytes < int64_t{1} << 46, "an absurd arena");
    for (const auto* list : {&regime.values, &regime.workspaces}) {
      for (const PlannedBuffer& b : *list) {
        require(b.offset >= 0 && b.offset % 64 == 0 && b.bytes >= 0 &&
                    b.bytes <= regime.arena_bytes - b.offset,
                "a buffer outside its arena");
      }
    }
    std::set<std::string> bound;
    for (const ir::Symbol& s : regime.maxima) {
      require(s.max > 0 && s.max <= std::numeric_limits<int32_t>::max(), "a symbol out of range");
      bound.insert(s.name);
    }
    for (const ir::Symbol& s : planned.graph.symbols()) {
      require(bound.contains(s.name), "a symbol without a maximum");
    }
    const ir::Bindings bindings(regime.maxima);
    for (ir::ValueId v = 0; v < planned.graph.num_values(); ++v) {
      const int64_t have = regime.values[static_cast<size_t>(v)].bytes;
      require(have == 0 || have >= value_bytes(planned.graph.type(v), bindings),
              "a buffer smaller than its value");
    }
  }

  // Bytes of a value; refuses products that do not fit into 46 bits.
  int64_t value_bytes(const ir::TensorType& type, const ir::Bindings& bindings) {
    int64_t bytes = ir::dtype_size(type.dtype);
    for (const int64_t dim : bindings.resolve(type.shape)) {
      require(dim >= 0, "a negative dimension");
      bytes = product(bytes, dim, "an absurd value");
    }
    return bytes;
  }

  // a * b of sizes that are not negative, below 2^46.
  int64_t product(int64_t a, int64_t b, const char* what) const {
    int64_t result = 0;
    require(!__builtin_mul_overflow(a, b, &result) && result < int64_t{1} << 46, what);
    return result;
  }

  void check(const KvGroup& group) {
    for (const int size : {group.kv_heads, group.k_size}) {
      require(size > 0 && size < 1 << 20, "a KV group of absurd size");
    }
    // A latent cache has no V.
    require(group.v_size >= 0 && group.v_size < 1 << 20, "a KV group of absurd size");
    require(group.window >= 0 && group.sink_tokens >= 0, "a negative window");
    for (const std::string& layer : group.layers) {
      const ir::ValueId input = e_.graph.find_input(layer);
      require(input != ir::kNone && e_.graph.type(input).dtype == ir::DType::kState,
              "a KV layer that the graph does not have");
    }
  }

  void check(const Weight& weight) {
    int64_t elements = 1;
    require(!weight.shape.empty(), "a weight without a shape");
    for (const int64_t dim : weight.shape) {
      require(dim > 0, "a weight with an empty dimension");
      elements = product(elements, dim, "a weight of absurd size");
    }
    rows(weight);
    for (const WeightSlice& s : weight.slices) {
      require(s.first_row >= 0 && s.tensor_rows >= 0 &&
                  (s.tensor_rows == 0 || s.first_row <= s.tensor_rows - s.rows),
              "rows outside a weight's tensor");
    }
    if (e_.dummy_weights) {
      check_conversion(ir::DType::kF32, weight.dtype);
      return;
    }
    // Stored [K, N] for [N, K]; transposed matrices in a stack are a row each.
    const bool is_matrix = weight.transposed && weight.shape.size() == 2;
    int64_t stored = 0;
    for (const WeightSlice& s : weight.slices) {
      require(s.file >= -1 && s.file < static_cast<int32_t>(e_.files.size()),
              "a weight in no file");
      const int64_t size = s.file < 0 ? packed_bytes_ : e_.files[static_cast<size_t>(s.file)].size;
      require(s.rows > 0 && s.row_bytes > 0 && s.offset >= 0 && s.offset <= size &&
                  product(s.rows, s.row_bytes, "a weight of absurd size") <= size - s.offset,
              "a weight outside its file");
      check_conversion(s.dtype, weight.dtype);
      require(s.row_bytes % ir::dtype_size(s.dtype) == 0, "a weight with half an element");
      const int64_t in_row = s.row_bytes / ir::dtype_size(s.dtype);
      require(in_row == (is_matrix ? weight.shape[0] : elements / weight.shape[0]),
              "a weight whose rows are not those of its shape");
      stored += s.rows * in_row;
    }
    require(stored == elements, "a weight whose parts do not give its shape");
  }

  void check_conversion(ir::DType from, ir::DType to) const {
    require(ir::is_convertible(from, to), "a weight whose type cannot be converted");
  }

  // A reader goes through the slices row by row of the weight.
  void rows(const Weight& weight) const {
    require(!weight.unit_rows || (weight.shape.size() == 2 && !weight.transposed),
            "a weight whose rows cannot be divided by their length");
    if (weight.transposed) {
      const size_t rank = weight.shape.size();
      require((rank == 2 || rank == 3) && weight.slices.size() == 1,
              "a transposed weight that is not one tensor of matrices");
      return;
    }
    int64_t left = weight.shape[0];
    for (const WeightSlice& s : weight.slices) {
      require(s.rows > 0 && s.rows <= left, "a weight whose parts do not give its shape");
      left -= s.rows;
    }
    require(left == 0, "a weight whose parts do not give its shape");
  }

  void require(bool condition, const char* what) const {
    if (condition) return;
    throw_bad_input(str("the engine file describes ", what), where_,
                    "build it again with `millrace build`");
  }

  const Engine& e_;
  int64_t packed_bytes_;
  const std::string& where_;
};

}  // namespace

void validate(const Engine& engine, int64_t packed_bytes, const std::string& where) {
  Validator(engine, packed_bytes, where).run();
}

}  // namespace millrace::engine
