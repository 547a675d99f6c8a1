// Reads the text form that print.cc writes: by recursive descent, line numbers in every error.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "base/error.h"
#include "ir/graph.h"

namespace millrace::ir {
namespace {

class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Graph run() {
    expect_word("graph");
    Graph graph(word("a graph name"));
    expect('{');
    while (peek_word() == "dim") {
      expect_word("dim");
      const std::string symbol = word("a dimension name");
      expect('<');
      expect('=');
      const int64_t max = integer();
      if (max < 0) fail("a dimension's bound is negative");
      for (const Symbol& s : graph.symbols()) {
        if (s.name == symbol) fail(str("dimension ", symbol, " is declared twice"));
      }
      graph.add_symbol(symbol, max);
    }
    while (peek() == '%')
      node(graph);
    expect_word("return");
    while (peek() != '}') {
      if (!graph.outputs().empty()) expect(',');
      std::string name = word("an output name");
      expect('=');
      graph.add_output(std::move(name), value_use());
    }
    expect('}');
    if (peek() != '\0') fail("text after the end of the graph");
    return graph;
  }

 private:
  void node(Graph& graph) {
    std::vector<int64_t> numbers;
    std::vector<TensorType> types;
    do {
      if (!numbers.empty()) expect(',');
      expect('%');
      numbers.push_back(integer());
      // Before anything follows: the line is this one.
      if (values_.contains(numbers.back()) ||
          std::count(numbers.begin(), numbers.end(), numbers.back()) > 1) {
        fail(str("value %", numbers.back(), " is made twice"));
      }
      expect(':');
      types.push_back(tensor_type());
    } while (peek() == ',');
    expect('=');
    Node made;
    made.op = word("an op name");
    expect('(');
    while (peek() != ')') {
      if (!made.inputs.empty()) expect(',');
      made.inputs.push_back(value_use());
    }
    expect(')');
    if (peek() == '{') made.attrs = attributes();
    if (peek() == '@') {
      expect('@');
      made.scope = word("a scope");
    }
    const NodeId id = graph.add(std::move(made), types);
    for (size_t i = 0; i < numbers.size(); ++i)
      values_.emplace(numbers[i], graph.node(id).outputs[i]);
  }

  TensorType tensor_type() {
    const std::string name = word("an element type");
    const std::optional<DType> dtype = parse_dtype(name);
    if (!dtype) fail(str("unknown element type ", name));
    TensorType type{*dtype, {}};
    expect('[');
    while (peek() != ']') {
      if (!type.shape.empty()) expect(',');
      if (std::isdigit(static_cast<unsigned char>(peek())) != 0) {
        type.shape.emplace_back(integer());
      } else {
        type.shape.emplace_back(word("a dimension"));
      }
    }
    expect(']');
    return type;
  }

  Attrs attributes() {
    Attrs attrs;
    expect('{');
    while (peek() != '}') {
      if (!attrs.empty()) expect(',');
      const std::string name = word("an attribute name");
      expect('=');
      if (attrs.find(name) != nullptr) fail(str("attribute ", name, " is given twice"));
      attrs.set(name, attribute());
    }
    expect('}');
    return attrs;
  }

  AttrValue attribute() {
    if (peek() == '"') return quoted();
    if (peek() == '[') {
      std::vector<double> list;
      expect('[');
      while (peek() != ']') {
        if (!list.empty()) expect(',');
        const AttrValue item = number();
        const auto* whole = std::get_if<int64_t>(&item);
        list.push_back(whole != nullptr ? static_cast<double>(*whole) : std::get<double>(item));
      }
      expect(']');
      return list;
    }
    if (peek_word() == "true") return word("a value"), true;
    if (peek_word() == "false") return word("a value"), false;
    return number();
  }

  std::string quoted() {
    expect('"');
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      char c = text_[at_++];
      if (c == '\\' && at_ < text_.size()) {
        c = text_[at_++];
        if (c == 'n') c = '\n';
      }
      out += c;
    }
    expect('"');
    return out;
  }

  AttrValue number() {
    skip_space();
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                  text_[at_] == '.' || text_[at_] == '-' || text_[at_] == '+')) {
      ++at_;
    }
    const std::string_view token = text_.substr(begin, at_ - begin);
    const char* end = token.data() + token.size();
    int64_t whole = 0;
    if (auto r = std::from_chars(token.data(), end, whole); r.ec == std::errc() && r.ptr == end) {
      return whole;
    }
    double real = 0;
    if (auto r = std::from_chars(token.data(), end, real); r.ec == std::errc() && r.ptr == end) {
      return real;
    }
    fail(str("'", token, "' is not a value"));
  }

  int64_t integer() {
    const AttrValue value = number();
    const auto* whole = std::get_if<int64_t>(&value);
    if (whole == nullptr) fail("a whole number is needed here");
    return *whole;
  }

  ValueId value_use() {
    expect('%');
    const int64_t number = integer();
    const auto found = values_.find(number);
    if (found == values_.end()) fail(str("value %", number, " is read before it is made"));
    return found->second;
  }

  static bool is_word_char(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-' ||
           c == '/';
  }

  std::string_view peek_word() {
    skip_space();
    size_t end = at_;
    while (end < text_.size() && is_word_char(text_[end]))
      ++end;
    return text_.substr(at_, end - at_);
  }

  std::string word(const char* what) {
    const std::string_view found = peek_word();
    if (found.empty()) fail(str(what, " is missing"));
    at_ += found.size();
    return std::string(found);
  }

  void expect_word(std::string_view wanted) {
    if (peek_word() != wanted) fail(str("'", wanted, "' is missing"));
    at_ += wanted.size();
  }

  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  void expect(char wanted) {
    if (peek() != wanted || at_ >= text_.size()) fail(str("'", wanted, "' is missing"));
    ++at_;
  }

  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0)
      ++at_;
  }

  [[noreturn]] void fail(const std::string& what) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<int64_t>(at_), '\n');
    throw_bad_input(str("cannot read the graph: ", what), str(where_, ", line ", line));
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  std::map<int64_t, ValueId> values_;
};

}  // namespace

Graph parse(std::string_view text, const std::string& where) {
  return Parser(text, where).run();
}

}  // namespace millrace::ir
