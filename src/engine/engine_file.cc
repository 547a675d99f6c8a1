#include "engine/engine_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/hash.h"
#include "engine/engine_json.h"
#include "engine/validate.h"

namespace millrace::engine {
namespace {

constexpr std::array<char, 8> kMagic = {'M', 'I', 'L', 'L', 'R', 'A', 'C', 'E'};
constexpr int64_t kWeightAlignment = 4096;  // of the section, so that pages of it can be mapped
constexpr int64_t kTensorAlignment = 64;

// The first bytes of the file, little-endian, no padding.
struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t format_version = kFormatVersion;
  uint32_t header_bytes = sizeof(Header);
  uint64_t file_bytes = 0;
  uint64_t plan_offset = 0, plan_bytes = 0, plan_hash = 0;
  uint64_t graph_offset = 0, graph_bytes = 0, graph_hash = 0;
  uint64_t assets_offset = 0, assets_bytes = 0, assets_hash = 0;
  uint64_t weights_offset = 0, weights_bytes = 0;
  uint64_t header_hash = 0;  // of the bytes before it
};
static_assert(sizeof(Header) == 8 + 8 + 8 + 11 * 8 + 8);

uint64_t hash_header(const Header& header) {
  return hash64(
      std::string_view(reinterpret_cast<const char*>(&header), offsetof(Header, header_hash)));
}

// Appends the packed weights; fills in slices of `engine` that point into this file and the hashes
// of its chunks.
void pack_weights(AtomicFile& file, const WeightProducer& produce, Engine* engine,
                  std::vector<uint64_t>* hashes) {
  const int64_t base = file.size();
  std::string bytes, chunk;
  const auto feed = [&](std::string_view data) {
    while (!data.empty()) {
      const size_t room = static_cast<size_t>(kChunkBytes) - chunk.size();
      chunk.append(data.substr(0, room));
      data.remove_prefix(std::min(room, data.size()));
      if (static_cast<int64_t>(chunk.size()) < kChunkBytes) return;
      hashes->push_back(hash64(chunk));
      chunk.clear();
    }
  };
  for (Weight& weight : engine->weights) {
    const std::string padding(
        static_cast<size_t>((kTensorAlignment - (file.size() - base) % kTensorAlignment) %
                            kTensorAlignment),
        '\0');
    file.write(padding);
    feed(padding);
    const int64_t offset = file.size() - base;
    produce(weight, &bytes);
    file.write(bytes);
    feed(bytes);
    const int64_t rows = weight.shape.empty() ? 1 : weight.shape[0];
    weight.slices = {{.file = -1,
                      .offset = offset,
                      .rows = rows,
                      .row_bytes = rows == 0 ? 0 : static_cast<int64_t>(bytes.size()) / rows,
                      .dtype = weight.dtype,
                      .tensor = weight.name}};
    weight.transposed = weight.unit_rows = false;
  }
  if (!chunk.empty()) hashes->push_back(hash64(chunk));
}

}  // namespace

const char* model_kind_name(ModelKind kind) {
  switch (kind) {
    case ModelKind::kDecoder:
      return "decoder";
    case ModelKind::kEncoderDecoder:
      return "encoder_decoder";
    case ModelKind::kEncoder:
      return "encoder";
  }
  return "";
}

const Asset* Engine::find_asset(std::string_view name) const {
  for (const Asset& a : assets) {
    if (a.name == name) return &a;
  }
  return nullptr;
}

void write_engine(const Engine& engine, const std::string& path, const WeightProducer& produce) {
  Engine stored = engine;
  AtomicFile file(path);
  Header header;
  file.write(&header, sizeof header);
  file.pad_to(kWeightAlignment);
  std::vector<uint64_t> hashes;
  header.weights_offset = static_cast<uint64_t>(file.size());
  if (produce) {
    pack_weights(file, produce, &stored, &hashes);
    stored.files.clear();
    stored.dummy_weights = false;
  }
  header.weights_bytes = static_cast<uint64_t>(file.size()) - header.weights_offset;

  const auto section = [&](const std::string& bytes, uint64_t* offset, uint64_t* size,
                           uint64_t* hash) {
    *offset = static_cast<uint64_t>(file.size());
    *size = bytes.size();
    *hash = hash64(bytes);
    file.write(bytes);
  };
  std::string assets;
  for (const Asset& a : stored.assets)
    assets += a.bytes;
  section(plan_to_json(stored, hashes), &header.plan_offset, &header.plan_bytes, &header.plan_hash);
  std::string graphs = print(stored.graph);
  if (stored.encoder) graphs += print(stored.encoder->graph);
  section(graphs, &header.graph_offset, &header.graph_bytes, &header.graph_hash);
  section(assets, &header.assets_offset, &header.assets_bytes, &header.assets_hash);
  header.file_bytes = static_cast<uint64_t>(file.size());
  header.header_hash = hash_header(header);
  file.write_at(0, &header, sizeof header);
  file.commit();
}

std::shared_ptr<const EngineFile> EngineFile::open(const std::string& path) {
  std::shared_ptr<EngineFile> opened(new EngineFile());
  opened->file_ = MappedFile::open(path);
  try {
    opened->read(*opened->file_);
  } catch (Error& error) {
    if (error.where().empty()) error.add_context(path);
    throw;
  }
  return opened;
}

std::shared_ptr<const EngineFile> EngineFile::from_memory(Engine engine) {
  std::shared_ptr<EngineFile> made(new EngineFile());
  made->engine_ = std::move(engine);
  return made;
}

void EngineFile::read(const MappedFile& file) {
  const std::string& path = file.path();
  const std::string rebuild = "build it again with `millrace build`";
  Header header;
  if (file.size() < 16 || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    throw_bad_input("this is not an engine file", path,
                    "give a model folder or a file made by `millrace build`");
  }
  uint32_t version = 0;
  std::memcpy(&version, file.data() + kMagic.size(), sizeof version);
  if (version != kFormatVersion) {
    throw_bad_input(str("the engine file has format version ", version, ", this program reads ",
                        kFormatVersion),
                    path, rebuild);
  }
  if (file.size() < static_cast<int64_t>(sizeof header)) {
    throw_bad_input("the engine file is cut short", path, rebuild);
  }
  std::memcpy(&header, file.data(), sizeof header);
  if (header.header_hash != hash_header(header)) {
    throw_bad_input("the engine file's header is damaged", path, rebuild);
  }
  if (header.file_bytes != static_cast<uint64_t>(file.size())) {
    throw_bad_input(
        str("the engine file has ", file.size(), " bytes and should have ", header.file_bytes),
        path, rebuild);
  }
  const auto section = [&](uint64_t offset, uint64_t size, uint64_t hash, const char* name) {
    const auto total = static_cast<uint64_t>(file.size());
    const bool inside = offset <= total && size <= total - offset;
    const std::string_view bytes(reinterpret_cast<const char*>(file.data()) + (inside ? offset : 0),
                                 inside ? size : 0);
    if (!inside || hash64(bytes) != hash) {
      throw_bad_input(str("the engine file's ", name, " is damaged"), path, rebuild);
    }
    return bytes;
  };
  PlanParts parts;
  plan_from_json(section(header.plan_offset, header.plan_bytes, header.plan_hash, "plan"), &engine_,
                 &parts);
  chunk_hashes_ = std::move(parts.chunk_hashes);
  read_graphs(section(header.graph_offset, header.graph_bytes, header.graph_hash, "graph"),
              parts.encoder_graph_offset, path);
  std::string_view assets =
      section(header.assets_offset, header.assets_bytes, header.assets_hash, "assets");
  for (size_t i = 0; i < parts.asset_sizes.size(); ++i) {
    const auto size = static_cast<size_t>(parts.asset_sizes[i]);
    if (parts.asset_sizes[i] < 0 || size > assets.size()) {
      throw_bad_input("the engine file's assets are damaged", path, rebuild);
    }
    engine_.assets[i].bytes = assets.substr(0, size);
    assets.remove_prefix(size);
  }
  const auto total = static_cast<uint64_t>(file.size());
  if (header.weights_offset > total || header.weights_bytes > total - header.weights_offset ||
      header.weights_offset % kWeightAlignment != 0) {
    throw_bad_input("the engine file's weights are damaged", path, rebuild);
  }
  weights_offset_ = static_cast<int64_t>(header.weights_offset);
  weights_bytes_ = static_cast<int64_t>(header.weights_bytes);
  if (static_cast<int64_t>(chunk_hashes_.size()) !=
      (weights_bytes_ + kChunkBytes - 1) / kChunkBytes) {
    throw_bad_input("the engine file's weights have no checksums", path, rebuild);
  }
  try {
    ir::verify(engine_.graph, path);
    if (engine_.encoder) ir::verify(engine_.encoder->graph, path);
  } catch (const Error& error) {  // whose advice is for who writes passes
    throw_bad_input(str("the engine file holds an ", error.message()), path, rebuild);
  }
  validate(engine_, weights_bytes_, path);
}

// The encoder's graph, where there is one, stands behind the other.
void EngineFile::read_graphs(std::string_view text, uint64_t encoder_offset,
                             const std::string& path) {
  if (!engine_.encoder) {
    engine_.graph = ir::parse(text, path);
    return;
  }
  if (encoder_offset > text.size()) {
    throw_bad_input("the engine file's graph is damaged", path,
                    "build it again with `millrace build`");
  }
  engine_.graph = ir::parse(text.substr(0, encoder_offset), path);
  engine_.encoder->graph = ir::parse(text.substr(encoder_offset), path);
}

void EngineFile::verify_weights(int64_t offset, int64_t bytes) const {
  for (int64_t i = offset / kChunkBytes; i * kChunkBytes < offset + bytes; ++i) {
    const int64_t begin = i * kChunkBytes;
    const int64_t size = std::min(kChunkBytes, weights_bytes_ - begin);
    const std::span chunk(file_->data() + weights_offset_ + begin, static_cast<size_t>(size));
    if (hash64(chunk) != chunk_hashes_[static_cast<size_t>(i)]) {
      throw_bad_input("the weights in the engine file are damaged", file_->path(),
                      "build it again with `millrace build`");
    }
  }
}

bool looks_like_engine(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::array<char, 8> magic{};
  return in.read(magic.data(), magic.size()) && magic == kMagic;
}

}  // namespace millrace::engine
