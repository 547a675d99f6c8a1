#include "ir/attrs.h"

#include <cmath>

#include "base/str.h"

namespace millrace::ir {
namespace {

std::string print_double(double value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string out = str(value);
  if (out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

void Attrs::set(std::string_view name, AttrValue value) {
  for (Entry& e : entries_) {
    if (e.first == name) {
      e.second = std::move(value);
      return;
    }
  }
  entries_.emplace_back(name, std::move(value));
}

const AttrValue* Attrs::find(std::string_view name) const {
  for (const Entry& e : entries_) {
    if (e.first == name) return &e.second;
  }
  return nullptr;
}

void Attrs::erase(std::string_view name) {
  std::erase_if(entries_, [&](const Entry& e) { return e.first == name; });
}

std::string to_string(const AttrValue& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return str(*i);
  if (const auto* d = std::get_if<double>(&value)) return print_double(*d);
  if (const auto* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const auto* s = std::get_if<std::string>(&value)) return quote(*s);
  std::string out = "[";
  for (const double d : std::get<std::vector<double>>(value)) {
    if (out.size() > 1) out += ", ";
    out += print_double(d);
  }
  return out + "]";
}

}  // namespace millrace::ir
