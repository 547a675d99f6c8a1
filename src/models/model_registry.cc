#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/str.h"
#include "models/generation_inputs.h"
#include "models/model.h"

namespace millrace::models {

// Each model file defines `Architecture model_FILE()`; the list is made from the folder
// (cmake/discover.cmake).
#define MILLRACE_MODEL(name) Architecture model_##name();
#include "gen/model_list.inc"
#undef MILLRACE_MODEL

namespace {

const std::vector<Architecture>& architectures() {
  static const std::vector<Architecture> all = {
#define MILLRACE_MODEL(name) model_##name(),
#include "gen/model_list.inc"
#undef MILLRACE_MODEL
  };
  return all;
}

/// Levenshtein distance, to name the architecture that was probably meant.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replace = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replace, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

}  // namespace

nn::StepInputs Model::prepare_inputs(nn::Trace& trace, const InputLimits& limits) const {
  return prepare_basic_inputs(trace, kv_layers(), limits);
}

std::vector<nn::Value> Model::forward_encoder(nn::Trace&, const nn::EncoderInputs&) const {
  CHECK(false, "a model without an encoder was asked for it");
}

std::vector<std::string_view> architecture_names() {
  std::vector<std::string_view> names;
  for (const Architecture& a : architectures()) {
    names.insert(names.end(), a.names.begin(), a.names.end());
  }
  std::sort(names.begin(), names.end());
  return names;
}

const Architecture& find_architecture(const HfConfig& config) {
  const std::string wanted = config.architecture();
  for (const Architecture& a : architectures()) {
    if (std::find(a.names.begin(), a.names.end(), wanted) != a.names.end()) return a;
  }
  const std::vector<std::string_view> names = architecture_names();
  const auto nearest = std::min_element(names.begin(), names.end(), [&](auto a, auto b) {
    return edit_distance(wanted, a) < edit_distance(wanted, b);
  });
  config.fail("architectures", str("is ", wanted, ", which is not supported"),
              str("the nearest supported one is ", *nearest, "; all: ", join(names, ", ")));
}

}  // namespace millrace::models
