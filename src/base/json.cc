#include "base/json.h"

#include <fstream>

#include <nlohmann/json.hpp>

namespace millrace {
namespace {

constexpr auto kReplace = nlohmann::json::error_handler_t::replace;

}  // namespace

nlohmann::json parse_json(std::string_view text) {
  return nlohmann::json::parse(text);
}

nlohmann::ordered_json parse_ordered_json(std::string_view text) {
  return nlohmann::ordered_json::parse(text);
}

nlohmann::json parse_json_file(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

nlohmann::ordered_json parse_ordered_json_file(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::ordered_json::parse(file);
}

std::string json_line(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, kReplace);
}

std::string json_line(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, kReplace);
}

}  // namespace millrace
