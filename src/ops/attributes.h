// Attribute structs: printing, parsing and comparison follow from one list of fields.
//
//   struct RmsNorm {
//     static constexpr std::string_view kName = "rms_norm";
//     double eps = 1e-5;
//     static constexpr auto fields() { return std::tuple{Field{"eps", &RmsNorm::eps}}; }
//   };
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "ir/attrs.h"

namespace millrace::ops {

template <typename C, typename T>
struct Field {
  const char* name;
  T C::* member;
};

/// Fields with their default value are left out, so that the text form stays short.
template <typename A>
ir::Attrs to_attrs(const A& attrs) {
  ir::Attrs out;
  const A defaults{};
  const auto put = [&](const auto& field) {
    const auto& value = attrs.*(field.member);
    using T = std::decay_t<decltype(value)>;
    if (value == defaults.*(field.member)) return;
    if constexpr (std::is_same_v<T, int>) {
      out.set(field.name, static_cast<int64_t>(value));
    } else {
      out.set(field.name, value);
    }
  };
  std::apply([&](const auto&... field) { (put(field), ...); }, A::fields());
  return out;
}

namespace internal {

template <typename T>
void assign(const ir::AttrValue& value, std::string_view op, const char* name, T* target) {
  if constexpr (std::is_same_v<T, int>) {
    if (const auto* whole = std::get_if<int64_t>(&value)) {
      if (*whole == static_cast<int>(*whole)) {
        *target = static_cast<int>(*whole);
        return;
      }
    }
  } else if constexpr (std::is_same_v<T, double>) {
    if (const auto* whole = std::get_if<int64_t>(&value)) {
      *target = static_cast<double>(*whole);
      return;
    }
    if (const auto* real = std::get_if<double>(&value)) {
      *target = *real;
      return;
    }
  } else {
    if (const auto* same = std::get_if<T>(&value)) {
      *target = *same;
      return;
    }
  }
  throw_bad_input(str("attribute ", name, " has the wrong type: ", ir::to_string(value)),
                  std::string(op));
}

}  // namespace internal

/// Reads the struct; an unknown name or a wrong type is an Error (kBadInput).
template <typename A>
A from_attrs(const ir::Attrs& attrs) {
  A out{};
  for (const auto& [name, value] : attrs.entries()) {
    bool known = false;
    const auto take = [&](const auto& field) {
      if (name != field.name) return;
      known = true;
      internal::assign(value, A::kName, field.name, &(out.*(field.member)));
    };
    std::apply([&](const auto&... field) { (take(field), ...); }, A::fields());
    if (!known) throw_bad_input(str("unknown attribute ", name), std::string(A::kName));
  }
  return out;
}

/// Op::parse_attrs for the struct A.
template <typename A>
std::shared_ptr<const void> parse_attrs(const ir::Attrs& attrs) {
  return std::make_shared<const A>(from_attrs<A>(attrs));
}

}  // namespace millrace::ops
