// The layers that model files are written in: every call appends nodes to the graph being traced.
#pragma once

#include "nn/trace.h"

namespace millrace::nn {

/// x [T, K] times weight [out, K]^T, plus bias [out] if `bias`: `weight` and `bias` below the scope
/// -> [T, out].
Value linear(const Scope& scope, Value x, int64_t out, bool bias = false);
/// The same with some rows of a weight stored as [stored_out, K] -> [T, runs.count * runs.pieces].
Value linear_rows(const Scope& scope, Value x, int64_t stored_out, const RowRuns& runs, bool bias);
/// The head: x [T, K] times weight [vocabulary, K]^T, in f32 whatever the activation type -> [T,
/// vocabulary]; plus `bias` [vocabulary], where it is given. Notes x as the last hidden states.
Value logits(const Scope& scope, Value x, int64_t vocabulary, Value bias = {});
/// The same without bias, with rows of the weight divided by their length.
Value unit_rows_logits(const Scope& scope, Value x, int64_t vocabulary);
/// GPT-2's Conv1D: a linear layer with bias whose weight is stored [K, out].
Value conv1d(const Scope& scope, Value x, int64_t out);
/// Rows of `weight` [rows, dim] by id -> [T, dim] in the activation type.
Value embedding(const Scope& scope, Value ids, int64_t rows, int64_t dim, int offset = 0);
/// Of whole rows, times `weight` [K] below the scope plus `weight_offset` (1 where checkpoints hold
/// the weight minus 1).
Value rms_norm(const Scope& scope, Value x, double eps, double weight_offset = 0);

/// What a layer norm has below its scope, and over what it goes.
struct LayerNormOptions {
  bool weight = true, bias = true;
  double weight_offset = 0;
  /// Unless 0, each of `groups` equal parts of a row is normalised on its own, and `weight` is
  /// stored as [groups, K / groups], or as [K / groups] where the parts share it.
  int groups = 0;
  bool shared_weight = false;
};
Value layer_norm(const Scope& scope, Value x, double eps, const LayerNormOptions& options = {});
/// Each of `parts` equal parts of a row on its own, with the `weight` of layer 0, 1, ... below the
/// scope and no bias.
Value layer_norm_of_parts(const Scope& scope, Value x, int64_t parts, double eps);
/// Whether activation() knows this name.
bool knows_activation(const std::string& kind);
std::vector<std::string_view> activation_names();
/// f(x), by the name config.json uses. REQUIRES: knows_activation.
Value activation(Value x, const std::string& kind);
/// factor * x; x itself where the factor is 1.
Value scale(Value x, double factor);
/// cap * tanh(x / cap).
Value softcap(Value x, double cap);
/// min(max(x, low), high).
Value clamp(Value x, double low, double high);
/// x [T, E] plus the same row [1, E] for all.
Value add_row(Value x, Value row);
/// Columns [begin, end).
Value slice_cols(Value x, int64_t begin, int64_t end);
/// Rows of x by number.
Value gather_rows(Value x, Value rows);

Value operator+(Value a, Value b);
Value operator*(Value a, Value b);

}  // namespace millrace::nn
