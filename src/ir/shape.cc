#include "ir/shape.h"

#include "base/check.h"

namespace millrace::ir {

int64_t Dim::value() const {
  CHECK(is_static(), "dimension ", symbol_, " has no fixed value");
  return value_;
}

std::string to_string(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ", ";
    out += shape[i].is_static() ? str(shape[i].value()) : shape[i].symbol();
  }
  return out + "]";
}

Bindings::Bindings(const std::vector<Symbol>& symbols) : values_(symbols) {}

void Bindings::set(const std::string& symbol, int64_t value) {
  for (Symbol& s : values_) {
    if (s.name == symbol) {
      s.max = value;
      return;
    }
  }
  values_.push_back({symbol, value});
}

int64_t Bindings::at(const std::string& symbol) const {
  for (const Symbol& s : values_) {
    if (s.name == symbol) return s.max;
  }
  CHECK(false, "symbol ", symbol, " is not bound");
  return 0;
}

std::vector<int64_t> Bindings::resolve(const Shape& shape) const {
  std::vector<int64_t> out;
  out.reserve(shape.size());
  for (const Dim& dim : shape)
    out.push_back(resolve(dim));
  return out;
}

int64_t Bindings::count(const Shape& shape) const {
  int64_t product = 1;
  for (const Dim& dim : shape)
    product *= resolve(dim);
  return product;
}

}  // namespace millrace::ir
