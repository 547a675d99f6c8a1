// Shapes whose dimensions are numbers or bounded symbols (`T <= 8192`).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace millrace::ir {

/// One dimension: a number, or a symbol that a graph bounds (`Graph::symbols`) and a step gives a
/// value.
class Dim {
 public:
  // Implicit, so that a shape is written as it is read: {"T", 384}.
  Dim(int64_t value) : value_(value) {}                    // NOLINT(google-explicit-constructor)
  Dim(int value) : value_(value) {}                        // NOLINT(google-explicit-constructor)
  Dim(std::string symbol) : symbol_(std::move(symbol)) {}  // NOLINT(google-explicit-constructor)
  Dim(const char* symbol) : symbol_(symbol) {}             // NOLINT(google-explicit-constructor)

  bool is_static() const { return symbol_.empty(); }
  /// REQUIRES: is_static().
  int64_t value() const;
  /// Empty when the dimension is a number.
  const std::string& symbol() const { return symbol_; }
  bool operator==(const Dim&) const = default;

 private:
  int64_t value_ = 0;
  std::string symbol_;
};

using Shape = std::vector<Dim>;

/// The name of a dimension and its bound: 1 <= value <= max.
struct Symbol {
  std::string name;
  int64_t max = 0;
  bool operator==(const Symbol&) const = default;
};

/// `[T, 384]`.
std::string to_string(const Shape& shape);

/// Numbers for the symbols of one step, or their maxima. A handful of entries: a linear search is
/// fastest.
class Bindings {
 public:
  Bindings() = default;
  /// Every symbol at its maximum.
  explicit Bindings(const std::vector<Symbol>& symbols);

  void set(const std::string& symbol, int64_t value);
  /// REQUIRES: the symbol is bound.
  int64_t at(const std::string& symbol) const;
  int64_t resolve(const Dim& dim) const { return dim.is_static() ? dim.value() : at(dim.symbol()); }
  std::vector<int64_t> resolve(const Shape& shape) const;
  /// Product of the resolved dimensions; 1 for a scalar.
  int64_t count(const Shape& shape) const;

 private:
  std::vector<Symbol> values_;
};

}  // namespace millrace::ir
