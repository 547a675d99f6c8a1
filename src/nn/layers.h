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
/// vocabulary].
Value logits(const Scope& scope, Value x, int64_t vocabulary);
/// GPT-2's Conv1D: a linear layer with bias whose weight is stored [K, out].
Value conv1d(const Scope& scope, Value x, int64_t out);
/// Rows of `weight` [rows, dim] by id -> [T, dim] in the activation type.
Value embedding(const Scope& scope, Value ids, int64_t rows, int64_t dim, int offset = 0);
Value rms_norm(const Scope& scope, Value x, double eps);
/// With `weight` and `bias` below the scope.
Value layer_norm(const Scope& scope, Value x, double eps);
/// Whether activation() knows this name.
bool knows_activation(const std::string& kind);
std::vector<std::string_view> activation_names();
/// f(x), by the name config.json uses. REQUIRES: knows_activation.
Value activation(Value x, const std::string& kind);
/// Columns [begin, end).
Value slice_cols(Value x, int64_t begin, int64_t end);
/// Rows of x by number.
Value gather_rows(Value x, Value rows);

Value operator+(Value a, Value b);
Value operator*(Value a, Value b);

}  // namespace millrace::nn
