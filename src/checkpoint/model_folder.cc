#include "checkpoint/model_folder.h"

// Hub ids in the local Hugging Face cache: HUB/models--ORG--NAME/snapshots/COMMIT, the commit named
// by refs/main.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/error.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path hub_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string folder = variable(name); !folder.empty()) return folder;
  }
  if (const std::string home = variable("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  const std::string cache = variable("XDG_CACHE_HOME");
  const fs::path base = cache.empty() ? fs::path(variable("HOME")) / ".cache" : fs::path(cache);
  return base / "huggingface" / "hub";
}

/// `name` or `org/name`, of letters, digits and - _ . alone; no part begins with a dot.
bool is_hub_id(const std::string& model) {
  if (std::count(model.begin(), model.end(), '/') > 1) return false;
  bool at_start = true;
  for (const char c : model) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
    if (c == '/' ? at_start : !plain && (c != '.' || at_start)) return false;
    at_start = c == '/';
  }
  return !model.empty() && !at_start;
}

/// In HUB/models--ORG--NAME: snapshots/COMMIT, the commit named by refs/main; without one, the only
/// snapshot. Empty when there is no snapshot.
fs::path find_snapshot(const fs::path& cached) {
  std::string commit;
  std::ifstream(cached / "refs" / "main") >> commit;
  std::error_code error;
  const bool is_hex = !commit.empty() && std::all_of(commit.begin(), commit.end(), [](char c) {
    return std::isxdigit(static_cast<unsigned char>(c)) != 0;
  });
  if (is_hex && fs::is_directory(cached / "snapshots" / commit, error)) {
    return cached / "snapshots" / commit;
  }
  std::vector<fs::path> snapshots;
  for (const auto& entry : fs::directory_iterator(cached / "snapshots", error)) {
    if (entry.is_directory(error)) snapshots.push_back(entry.path());
  }
  return snapshots.size() == 1 ? snapshots[0] : fs::path();
}

}  // namespace

std::string resolve_model_folder(const std::string& model) {
  if (model.empty()) throw_bad_input("the model's name is empty");
  std::error_code error;
  if (fs::is_directory(model, error)) return model;
  if (fs::exists(model, error)) throw_bad_input("not a folder", model);
  if (!is_hub_id(model)) throw_bad_input("no such folder", model);
  std::string name = "models--" + model;
  if (const size_t slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
  const fs::path hub = hub_folder();
  const fs::path snapshot = find_snapshot(hub / name);
  if (snapshot.empty()) {
    throw_bad_input("no such folder, and no such model in the local Hugging Face cache",
                    str(model, ", ", hub.string()),
                    "give the path of a model folder, or download the model with `hf download`");
  }
  return snapshot.string();
}

}  // namespace millrace
