// Attributes of a node: named values that print and parse. Ops give them types (ops/op.h: to_attrs,
// from_attrs).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace millrace::ir {

/// Lists hold doubles: integers up to 2^53 survive, and an empty list needs no type.
using AttrValue = std::variant<int64_t, double, bool, std::string, std::vector<double>>;

/// Ordered by insertion, so that printing is stable.
class Attrs {
 public:
  using Entry = std::pair<std::string, AttrValue>;

  void set(std::string_view name, AttrValue value);
  const AttrValue* find(std::string_view name) const;
  void erase(std::string_view name);
  bool empty() const { return entries_.empty(); }
  const std::vector<Entry>& entries() const { return entries_; }
  bool operator==(const Attrs&) const = default;

 private:
  std::vector<Entry> entries_;
};

/// `12`, `1e-05`, `true`, `"text"`, `[1.0, 2.5]`: floats always carry a point or an exponent, so
/// the type survives.
std::string to_string(const AttrValue& value);

}  // namespace millrace::ir
