// Bytes as a graph's text: it is read or refused, and what was read is printed so that it reads and
// prints the same again.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "ir/graph.h"

namespace {

using millrace::ir::Graph;

void check_one_line(const millrace::Error& error) {
  CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
}

std::optional<Graph> parse(std::string_view text) {
  try {
    return millrace::ir::parse(text, "fuzz");
  } catch (const millrace::Error& error) {
    CHECK(error.code() == millrace::ErrorCode::kBadInput);
    check_one_line(error);
    return std::nullopt;
  }
}

bool is_well_formed(const Graph& graph) {
  try {
    millrace::ir::verify(graph, "fuzz");
    return true;
  } catch (const millrace::Error& error) {
    check_one_line(error);
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::optional<Graph> graph = parse({reinterpret_cast<const char*>(data), size});
  if (!graph) return 0;
  const std::string printed = print(*graph);
  const std::optional<Graph> again = parse(printed);
  CHECK(again.has_value(), printed);
  CHECK(print(*again) == printed, printed);
  CHECK(is_well_formed(*again) == is_well_formed(*graph), printed);
  return 0;
}
