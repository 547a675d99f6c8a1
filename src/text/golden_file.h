// Recorded results in tests/data, as JSON. For tests only.
#pragma once

#include <cctype>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace millrace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

inline std::string test_data(const std::string& name) {
  return std::string(MILLRACE_SOURCE_DIR) + "/tests/data/" + name;
}

inline Json read_golden(const std::string& name) {
  return parse_ordered_json_file(test_data(name));
}

/// A parameter's text as the name of a test case: letters, digits and underscores.
inline std::string case_name(std::string text) {
  for (char& c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return text;
}

}  // namespace millrace
