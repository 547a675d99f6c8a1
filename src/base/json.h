// Reading and writing JSON text, compiled once: in a file that calls the library's parser or writer
// itself, they are most of what is compiled.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace millrace {

// The value of a whole text. Throws nlohmann::json::exception as the library does.
nlohmann::json parse_json(std::string_view text);
nlohmann::ordered_json parse_ordered_json(std::string_view text);

// The same of a file; for tests and tools, which need no advice where it cannot be read.
nlohmann::json parse_json_file(const std::string& path);
nlohmann::ordered_json parse_ordered_json_file(const std::string& path);

// The value in one line. Bytes that are not UTF-8 become U+FFFD.
std::string json_line(const nlohmann::json& value);
std::string json_line(const nlohmann::ordered_json& value);

}  // namespace millrace
