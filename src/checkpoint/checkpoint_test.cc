#include "checkpoint/checkpoint.h"

#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/hash.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/test_folder.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

/// A file with one tensor of two bytes.
std::string one_tensor(const std::string& name, const std::string& data = "ab") {
  return safetensors_bytes(
      str(R"({")", name, R"(":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})"), data);
}

std::string open_error(const TestFolder& folder) {
  return bad_input_of([&] { Checkpoint::open(folder.path()); });
}

uint16_t element(const CheckpointTensor& tensor, int64_t index) {
  uint16_t value = 0;
  std::memcpy(&value, tensor.bytes.data() + 2 * index, 2);
  return value;
}

// Shapes and bits as the safetensors package for Python reads them.
TEST(Checkpoint, OpensAShardedModel) {
  const Checkpoint checkpoint = Checkpoint::open(MILLRACE_SOURCE_DIR "/models/novelist-14m");
  ASSERT_EQ(checkpoint.files().size(), 3u);
  int64_t elements = 0;
  for (const CheckpointTensor& tensor : checkpoint.tensors())
    elements += tensor.count();
  EXPECT_EQ(elements, 14162304);
  const CheckpointTensor& norm = checkpoint.get("model.norm.weight");
  EXPECT_EQ(norm.dtype, ir::DType::kBF16);
  EXPECT_EQ(norm.shape, std::vector<int64_t>{384});
  EXPECT_EQ(element(norm, 0), 0x3fba);
  EXPECT_EQ(element(norm, 383), 0x3fd4);
  const CheckpointTensor& down = checkpoint.get("model.layers.7.mlp.down_proj.weight");
  EXPECT_EQ(down.shape, (std::vector<int64_t>{384, 1024}));
  EXPECT_EQ(element(down, 0), 0xbca6);
  EXPECT_EQ(element(down, 384 * 1024 - 1), 0xbd8c);
  // The offset leads to the same bytes without this class.
  const CheckpointFile& file = checkpoint.files()[static_cast<size_t>(down.file_index)];
  std::ifstream stream(file.path, std::ios::binary);
  stream.seekg(down.offset);
  std::string bytes(down.bytes.size(), '\0');
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  EXPECT_EQ(hash64(bytes), hash64(down.bytes));
  checkpoint.check_intact();
}

TEST(Checkpoint, FindsTensorsByName) {
  const TestFolder folder;
  folder.write("model.safetensors",
               safetensors_bytes(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                 "BA"));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.get("a").bytes[0], std::byte{'A'});
  EXPECT_EQ(checkpoint.get("b").bytes[0], std::byte{'B'});
  EXPECT_FALSE(checkpoint.has("c"));
  EXPECT_FALSE(checkpoint.has(""));
  EXPECT_EQ(bad_input_of([&] { checkpoint.get("c.weight"); }),
            str("tensor \"c.weight\" is missing (", folder.path(),
                "); the weights do not fit config.json, or a file is incomplete"));
}

TEST(Checkpoint, IdentityFollowsTheHeader) {
  const TestFolder folder;
  const auto hash = [&](const std::string& bytes) {
    folder.write("model.safetensors", bytes);
    return Checkpoint::open(folder.path()).files()[0].header_hash;
  };
  EXPECT_EQ(hash(one_tensor("a", "xy")), hash(one_tensor("a", "zz")));  // data is not read for it
  EXPECT_NE(hash(one_tensor("a")), hash(one_tensor("b")));
  const std::string bytes = one_tensor("a");
  EXPECT_EQ(hash(bytes), hash64(std::string_view(bytes).substr(0, bytes.size() - 2)));
}

TEST(Checkpoint, FollowsLinksAsInTheHubCache) {
  const TestFolder folder;
  folder.write("blobs/123", one_tensor("a"));
  fs::create_directories(folder.path("snapshots/abc"));
  fs::create_symlink("../../blobs/123", folder.path("snapshots/abc/model.safetensors"));
  EXPECT_TRUE(Checkpoint::open(folder.path("snapshots/abc")).has("a"));
  fs::remove(folder.path("blobs/123"));
  EXPECT_EQ(bad_input_of([&] { Checkpoint::open(folder.path("snapshots/abc")); }),
            str("cannot open the file: No such file or directory (",
                folder.path("snapshots/abc/model.safetensors"), ")"));
}

TEST(Checkpoint, RefusesFoldersWithoutReadableWeights) {
  EXPECT_EQ(bad_input_of([] { Checkpoint::open("/no/such"); }), "no such folder (/no/such)");
  EXPECT_EQ(bad_input_of([] { Checkpoint::open("/dev/null"); }), "not a folder (/dev/null)");
  const TestFolder folder;
  EXPECT_NE(open_error(folder).find("no weights: neither model.safetensors nor"),
            std::string::npos);
  folder.write("model.gguf", "GGUF");
  EXPECT_NE(open_error(folder).find("GGUF format (model.gguf)"), std::string::npos);
  fs::remove(folder.path("model.gguf"));
  folder.write("pytorch_model.bin", "PK");
  EXPECT_NE(open_error(folder).find("PyTorch's format (pytorch_model.bin), which is not read"),
            std::string::npos);
  fs::create_directories(folder.path("model.safetensors"));
  EXPECT_EQ(open_error(folder),
            str("not a regular file but a folder (", folder.path("model.safetensors"), ")"));
  fs::remove(folder.path("model.safetensors"));
  fs::create_symlink("/dev/zero", folder.path("model.safetensors"));
  EXPECT_EQ(open_error(folder),
            str("not a regular file but a device (", folder.path("model.safetensors"), ")"));
  fs::remove(folder.path("model.safetensors"));
  folder.write("model.safetensors", safetensors_bytes("{}", ""));
  EXPECT_EQ(open_error(folder), str("the checkpoint holds no tensors (", folder.path(), ")"));
}

class ShardedCheckpoint : public ::testing::Test {
 protected:
  void write_index(const std::string& weight_map) const {
    folder_.write("model.safetensors.index.json", str(R"({"weight_map":)", weight_map, "}"));
  }
  std::string index_path() const { return folder_.path("model.safetensors.index.json"); }

  TestFolder folder_;
};

TEST_F(ShardedCheckpoint, ReadsAllShards) {
  folder_.write("1.safetensors", one_tensor("a", "12"));
  folder_.write("2.safetensors", one_tensor("b", "34"));
  write_index(R"({"a":"1.safetensors","b":"2.safetensors"})");
  const Checkpoint checkpoint = Checkpoint::open(folder_.path());
  EXPECT_EQ(checkpoint.get("b").bytes[1], std::byte{'4'});
  EXPECT_EQ(checkpoint.files()[1].path, folder_.path("2.safetensors"));
}

TEST_F(ShardedCheckpoint, RefusesAMissingShard) {
  folder_.write("1.safetensors", one_tensor("a"));
  write_index(R"({"a":"1.safetensors","b":"2.safetensors"})");
  EXPECT_EQ(open_error(folder_),
            str("the index lists the file \"2.safetensors\", which is missing (", index_path(),
                "); download the whole model"));
}

TEST_F(ShardedCheckpoint, RefusesAShardThatIsNotAFile) {
  fs::create_directories(folder_.path("1.safetensors"));
  write_index(R"({"a":"1.safetensors"})");
  EXPECT_EQ(open_error(folder_),
            str("not a regular file but a folder (", folder_.path("1.safetensors"), ")"));
}

TEST_F(ShardedCheckpoint, RefusesATensorThatIsNotWhereTheIndexPutsIt) {
  folder_.write("1.safetensors", one_tensor("a"));
  folder_.write("2.safetensors", one_tensor("b"));
  write_index(R"({"a":"2.safetensors","b":"1.safetensors"})");
  EXPECT_EQ(open_error(folder_),
            str("tensor \"a\" is not in \"2.safetensors\", where the index puts it (", index_path(),
                ")"));
  write_index(R"({"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"})");
  EXPECT_EQ(open_error(folder_),
            str("tensor \"c\" is not in \"2.safetensors\", where the index puts it (", index_path(),
                ")"));
}

TEST_F(ShardedCheckpoint, RefusesATensorInTwoShards) {
  folder_.write("1.safetensors", one_tensor("a"));
  folder_.write("2.safetensors",
                safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                  R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                  "12"));
  write_index(R"({"a":"1.safetensors","b":"2.safetensors"})");
  EXPECT_EQ(open_error(folder_),
            str("tensor \"a\" is also in \"1.safetensors\" (", folder_.path("2.safetensors"), ")"));
}

TEST_F(ShardedCheckpoint, RefusesAnEmptyIndex) {
  write_index("{}");
  EXPECT_EQ(open_error(folder_), str("the checkpoint holds no tensors (", folder_.path(), ")"));
}

TEST(CheckpointDamage, ATruncatedFileIsNoticed) {
  const TestFolder folder;
  const std::string header = R"({"a":{"dtype":"U8","shape":[65536],"data_offsets":[0,65536]}})";
  folder.write("model.safetensors", safetensors_bytes(header, std::string(65536, 'x')));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  checkpoint.check_intact();
  fs::resize_file(folder.path("model.safetensors"), 4096);
  EXPECT_EQ(checkpoint.get("a").bytes[65535], std::byte{0});
  EXPECT_THROW(checkpoint.check_intact(), Error);
}

/// Sets environment variables for a scope; an empty optional unsets.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::optional<std::string>& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~ScopedVariable() { set(old_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  void set(const std::optional<std::string>& value) const {
    value ? setenv(name_, value->c_str(), 1) : unsetenv(name_);
  }
  const char* name_;
  std::optional<std::string> old_;
};

class ModelFolder : public ::testing::Test {
 protected:
  ModelFolder()
      : hub_cache_("HF_HUB_CACHE", std::nullopt),
        old_hub_cache_("HUGGINGFACE_HUB_CACHE", std::nullopt),
        hf_home_("HF_HOME", folder_.path("hf")),
        xdg_("XDG_CACHE_HOME", std::nullopt),
        home_("HOME", folder_.path("home")) {}

  void add_snapshot(const std::string& cached, const std::string& commit) const {
    fs::create_directories(folder_.path(cached + "/snapshots/" + commit));
  }

  TestFolder folder_;
  ScopedVariable hub_cache_, old_hub_cache_, hf_home_, xdg_, home_;
};

TEST_F(ModelFolder, AFolderIsItself) {
  EXPECT_EQ(resolve_model_folder(folder_.path()), folder_.path());
  folder_.write("file", "x");
  EXPECT_EQ(bad_input_of([&] { resolve_model_folder(folder_.path("file")); }),
            str("not a folder (", folder_.path("file"), ")"));
  EXPECT_EQ(bad_input_of([] { resolve_model_folder("./absent"); }), "no such folder (./absent)");
}

TEST_F(ModelFolder, AHubIdIsTheSnapshotOfMain) {
  const std::string cached = "hf/hub/models--some-org--model_1.5";
  add_snapshot(cached, "aaaa");
  add_snapshot(cached, "bbbb");
  folder_.write(cached + "/refs/main", "bbbb\n");
  EXPECT_EQ(resolve_model_folder("some-org/model_1.5"), folder_.path(cached + "/snapshots/bbbb"));
  folder_.write(cached + "/refs/main", "../../..");
  EXPECT_NE(bad_input_of([] {
              resolve_model_folder("some-org/model_1.5");
            }).find("no such model in the local Hugging Face cache (some-org/model_1.5, "),
            std::string::npos);
}

TEST_F(ModelFolder, TheOnlySnapshotNeedsNoRef) {
  add_snapshot("hf/hub/models--gpt2", "cccc");
  EXPECT_EQ(resolve_model_folder("gpt2"), folder_.path("hf/hub/models--gpt2/snapshots/cccc"));
}

TEST_F(ModelFolder, VariablesChooseTheCache) {
  add_snapshot("home/.cache/huggingface/hub/models--a--b", "1111");
  add_snapshot("elsewhere/models--a--b", "2222");
  {
    const ScopedVariable unset("HF_HOME", std::nullopt);
    EXPECT_TRUE(resolve_model_folder("a/b").ends_with("/1111"));
  }
  const ScopedVariable hub("HF_HUB_CACHE", folder_.path("elsewhere"));
  EXPECT_TRUE(resolve_model_folder("a/b").ends_with("/2222"));
}

TEST_F(ModelFolder, OtherTextIsNoHubId) {
  add_snapshot("hf/hub/models--..--b", "1111");
  EXPECT_EQ(bad_input_of([] { resolve_model_folder(""); }), "the model's name is empty");
  for (const char* model : {"../b", "a/..", "a/b/c", "/b", "a/", "a b", "a/b\n"}) {
    EXPECT_NE(bad_input_of([&] { resolve_model_folder(model); }).find("no such folder ("),
              std::string::npos)
        << model;
  }
}

}  // namespace
}  // namespace millrace
