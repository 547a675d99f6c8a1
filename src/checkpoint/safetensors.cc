#include "checkpoint/safetensors.h"

#include <algorithm>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace millrace {
namespace {

using Json = nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // as the format states

/// Receives JSON event by event. A document tree would hide duplicate keys, of which the last wins.
class EventReader : public Json::json_sax_t {
 public:
  explicit EventReader(std::string path) : path_(std::move(path)) {}

  bool null() override { return value_unexpected("null"); }
  bool boolean(bool) override { return value_unexpected("a boolean"); }
  bool number_integer(int64_t value) override {
    return value_unexpected(str("the number ", value).c_str());
  }
  bool number_unsigned(uint64_t) override { return value_unexpected("a number"); }
  bool number_float(double, const std::string& text) override {
    return value_unexpected(str("the number ", text.substr(0, 40)).c_str());
  }
  bool string(std::string&) override { return value_unexpected("a string"); }
  bool binary(Json::binary_t&) override { return value_unexpected("binary data"); }
  bool start_object(size_t) override { return value_unexpected("an object"); }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return value_unexpected("an array"); }
  bool end_array() override { return true; }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail(str("the JSON is broken at byte ", position));
  }

 protected:
  [[noreturn]] void fail(const std::string& message) const { throw_bad_input(message, path_); }
  [[noreturn]] virtual bool value_unexpected(const char* what) = 0;

 private:
  std::string path_;
};

class HeaderReader : public EventReader {
 public:
  using EventReader::EventReader;

  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kRoot;
    } else if (place_ == Place::kEntry) {
      place_ = is_metadata_ ? Place::kMetadata : Place::kTensor;
    } else {
      value_unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) finish_tensor();
    place_ = place_ == Place::kRoot ? Place::kEnd : Place::kRoot;
    return true;
  }

  bool key(std::string& name) override {
    if (place_ == Place::kRoot) {
      if (!names_.insert(name).second) fail(str("tensor ", quote_name(name), " is there twice"));
      name_ = name;
      is_metadata_ = name == "__metadata__";
      entry_ = {};
      has_dtype_ = has_shape_ = false;
      offsets_.reset();
      place_ = Place::kEntry;
      return true;
    }
    if (place_ == Place::kMetadata) {
      key_ = name;
      if (header_.metadata.contains(name)) {
        fail(str("the metadata has ", quote_name(name), " twice"));
      }
      place_ = Place::kMetadataValue;
      return true;
    }
    const bool known = name == "dtype" || name == "shape" || name == "data_offsets";
    if (!known) fail(str(where(), "unknown key ", quote_name(name)));
    if (name == "dtype" ? has_dtype_ : name == "shape" ? has_shape_ : offsets_.has_value()) {
      fail(str(where(), name, " is there twice"));
    }
    key_ = name;
    place_ = Place::kField;
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadataValue) {
      header_.metadata[key_] = value;
      place_ = Place::kMetadata;
      return true;
    }
    if (place_ != Place::kField || key_ != "dtype") value_unexpected("a string");
    const auto dtype = ir::parse_safetensors_dtype(value);
    if (!dtype) fail(str(where(), "the type ", quote_name(value), " is not supported"));
    entry_.dtype = *dtype;
    has_dtype_ = true;
    place_ = Place::kTensor;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kField || key_ == "dtype") value_unexpected("an array");
    numbers_.clear();
    place_ = Place::kNumbers;
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kNumbers) value_unexpected("a number");
    if (value > static_cast<uint64_t>(INT64_MAX)) {
      fail(str(where(), key_, " holds ", value, ", which is too large"));
    }
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    if (key_ == "shape") {
      entry_.shape = numbers_;
      has_shape_ = true;
    } else {
      if (numbers_.size() != 2) {
        fail(str(where(), "data_offsets holds ", numbers_.size(), " numbers instead of 2"));
      }
      offsets_ = {numbers_[0], numbers_[1]};
    }
    place_ = Place::kTensor;
    return true;
  }

 private:
  enum class Place {
    kStart,          // before the root object
    kRoot,           // a tensor's name is next
    kEntry,          // after it: an object is next
    kTensor,         // a field's name is next
    kField,          // after it: a string or an array is next
    kNumbers,        // inside the array
    kMetadata,       // a key of the metadata is next
    kMetadataValue,  // a string is next
    kEnd,
  };

  std::string where() const { return str("tensor ", quote_name(name_), ": "); }

  [[noreturn]] bool value_unexpected(const char* what) override {
    switch (place_) {
      case Place::kStart:
        fail(str("the header is ", what, " instead of an object"));
      case Place::kEntry:
        fail(str(is_metadata_ ? "__metadata__" : where() + "its description", " is ", what,
                 " instead of an object"));
      case Place::kMetadataValue:
        fail(str("the metadata's ", quote_name(key_), " is ", what, " instead of a string"));
      case Place::kNumbers:
        fail(str(where(), key_, " holds ", what, " instead of a whole number of at least 0"));
      default:
        fail(str(where(), key_, " is ", what, " instead of ",
                 key_ == "dtype" ? "a string" : "an array"));
    }
  }

  void finish_tensor() {
    if (!has_dtype_) fail(str(where(), "dtype is missing"));
    if (!has_shape_) fail(str(where(), "shape is missing"));
    if (!offsets_) fail(str(where(), "data_offsets is missing"));
    int64_t bytes = ir::dtype_size(entry_.dtype);
    // Zero sizes last: they must not hide that the others overflow.
    bool is_empty = false;
    for (const int64_t size : entry_.shape) {
      if (size == 0) {
        is_empty = true;
      } else if (__builtin_mul_overflow(bytes, size, &bytes)) {
        fail(str(where(), "shape [", join(entry_.shape, ", "), "] is too large"));
      }
    }
    if (is_empty) bytes = 0;
    const auto [begin, end] = *offsets_;
    if (begin > end) fail(str(where(), "data_offsets [", begin, ", ", end, "] run backwards"));
    if (end - begin != bytes) {
      fail(str(where(), "shape [", join(entry_.shape, ", "), "] of ",
               ir::safetensors_dtype_name(entry_.dtype), " takes ", bytes,
               " bytes, but data_offsets [", begin, ", ", end, "] hold ", end - begin));
    }
    entry_.name = name_;
    entry_.begin = begin;
    entry_.end = end;
    header_.entries.push_back(std::move(entry_));
  }

  Place place_ = Place::kStart;
  SafetensorsHeader header_;
  std::set<std::string> names_;
  std::string name_, key_;
  bool is_metadata_ = false, has_dtype_ = false, has_shape_ = false;
  SafetensorsEntry entry_;
  std::vector<int64_t> numbers_;
  std::optional<std::pair<int64_t, int64_t>> offsets_;
};

/// Sorts the tensors by their bytes and checks that they fill the data part exactly.
void check_layout(SafetensorsHeader* header, int64_t data_size, const std::string& path) {
  auto& entries = header->entries;
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t filled = 0;
  std::string before;
  for (SafetensorsEntry& entry : entries) {
    const std::string what = str("tensor ", quote_name(entry.name));
    if (entry.end > data_size) {
      throw_bad_input(str(what, " ends at byte ", entry.end, " of the data, which has only ",
                          data_size, " bytes"),
                      path, "the file may have been cut short: download it again");
    }
    if (entry.begin < filled) {
      throw_bad_input(str(what, " overlaps tensor ", quote_name(before)), path);
    }
    if (entry.begin > filled) {
      throw_bad_input(
          str("the bytes ", filled, " to ", entry.begin, " before ", what, " belong to no tensor"),
          path);
    }
    filled = entry.end;
    before = entry.name;
    entry.begin += header->size;
    entry.end += header->size;
  }
  if (filled != data_size) {
    throw_bad_input(str("the last ", data_size - filled, " bytes belong to no tensor"), path);
  }
}

class IndexReader : public EventReader {
 public:
  IndexReader(const std::string& path, std::map<std::string, std::string>* weight_map)
      : EventReader(path), weight_map_(weight_map) {}

  bool null() override { return skip("null"); }
  bool boolean(bool) override { return skip("a boolean"); }
  bool number_integer(int64_t) override { return skip("a number"); }
  bool number_unsigned(uint64_t) override { return skip("a number"); }
  bool number_float(double, const std::string&) override { return skip("a number"); }

  bool start_object(size_t) override {
    ++depth_;
    if (depth_ == 2 && root_key_ == "weight_map") in_map_ = true;
    if (in_map_ && depth_ > 2) value_unexpected("an object");
    return true;
  }

  bool end_object() override {
    --depth_;
    in_map_ = in_map_ && depth_ == 2;
    return true;
  }

  bool start_array(size_t) override {
    if (in_map_ || depth_ == 0 || (depth_ == 1 && root_key_ == "weight_map")) {
      value_unexpected("an array");
    }
    ++depth_;
    return true;
  }

  bool end_array() override {
    --depth_;
    return true;
  }

  bool key(std::string& name) override {
    if (depth_ == 1) {
      root_key_ = name;
      if (name == "weight_map" && std::exchange(seen_map_, true)) {
        fail("weight_map is there twice");
      }
    } else if (in_map_) {
      tensor_ = name;
      if (weight_map_->contains(name)) fail(str("tensor ", quote_name(name), " is there twice"));
    }
    return true;
  }

  bool string(std::string& value) override {
    if (!in_map_) return skip("a string");
    const bool is_plain = !value.empty() && value != "." && value != ".." &&
                          value.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!is_plain) {
      fail(str("tensor ", quote_name(tensor_), ": ", quote_name(value),
               " is not the name of a file in the same folder"));
    }
    (*weight_map_)[tensor_] = value;
    return true;
  }

  bool has_map() const { return seen_map_; }

 private:
  [[noreturn]] bool value_unexpected(const char* what) override {
    if (depth_ == 0) fail(str("the index is ", what, " instead of an object"));
    if (!in_map_) fail(str("weight_map is ", what, " instead of an object"));
    fail(str("tensor ", quote_name(tensor_), ": its file is ", what, " instead of a name"));
  }

  /// Values outside of the weight map are of no interest.
  bool skip(const char* what) {
    if (in_map_ || depth_ == 0 || (depth_ == 1 && root_key_ == "weight_map")) {
      value_unexpected(what);
    }
    return true;
  }

  std::map<std::string, std::string>* weight_map_;
  int depth_ = 0;
  std::string root_key_, tensor_;
  bool in_map_ = false, seen_map_ = false;
};

}  // namespace

std::string quote_name(std::string_view name) {
  constexpr size_t kMaxShown = 200;
  std::string out = "\"";
  for (const char c : name.substr(0, kMaxShown)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  if (name.size() > kMaxShown) {
    // No half character: the last one goes with all its bytes.
    while ((out.back() & 0xc0) == 0x80)
      out.pop_back();
    if ((out.back() & 0xc0) == 0xc0) out.pop_back();
    out += "...";
  }
  return out + "\"";
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& path) {
  constexpr std::string_view kPointer = "version https://git-lfs";
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with(kPointer)) {
    throw_bad_input("the file is a Git LFS pointer and not the weights", path,
                    "run `git lfs pull`");
  }
  if (file.size() < static_cast<size_t>(kLengthBytes)) {
    throw_bad_input(str("not a safetensors file: only ", file.size(), " bytes long"), path);
  }
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    length = length << 8 | static_cast<uint64_t>(file[static_cast<size_t>(i)]);
  }
  const auto rest = static_cast<int64_t>(file.size()) - kLengthBytes;
  if (length > static_cast<uint64_t>(kMaxHeaderBytes)) {
    throw_bad_input(str("not a safetensors file: its header would have ", length, " bytes"), path);
  }
  if (static_cast<int64_t>(length) > rest) {
    throw_bad_input(str("the header has ", length, " bytes, but only ", rest, " follow"), path,
                    "the file may have been cut short: download it again");
  }
  const std::string_view json = text.substr(kLengthBytes, length);
  if (!json.starts_with('{')) throw_bad_input("the header does not begin with {", path);
  HeaderReader reader(path);
  Json::sax_parse(json.begin(), json.end(), &reader);
  SafetensorsHeader header = reader.take();
  header.size = kLengthBytes + static_cast<int64_t>(length);
  check_layout(&header, rest - static_cast<int64_t>(length), path);
  return header;
}

std::map<std::string, std::string> parse_safetensors_index(std::string_view text,
                                                           const std::string& path) {
  std::map<std::string, std::string> weight_map;
  IndexReader reader(path, &weight_map);
  Json::sax_parse(text.begin(), text.end(), &reader);
  if (!reader.has_map()) throw_bad_input("weight_map is missing", path);
  return weight_map;
}

}  // namespace millrace
