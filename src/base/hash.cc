#include "base/hash.h"

#define XXH_INLINE_ALL
#include <cstdio>

#include <xxhash.h>

#include "base/check.h"

namespace millrace {
namespace {

Hash128 from_xxh(XXH128_hash_t hash) {
  return {hash.high64, hash.low64};
}

}  // namespace

struct StreamHash::State {
  XXH3_state_t xxh;  // serves both widths: they differ only in the digest
};

uint64_t hash64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

uint64_t hash64(std::string_view text) {
  return XXH3_64bits(text.data(), text.size());
}

Hash128 hash128(std::span<const std::byte> bytes) {
  return from_xxh(XXH3_128bits(bytes.data(), bytes.size()));
}

Hash128 hash128(std::string_view text) {
  return from_xxh(XXH3_128bits(text.data(), text.size()));
}

std::string to_hex(uint64_t hash) {
  char buffer[17];
  std::snprintf(buffer, sizeof buffer, "%016llx", static_cast<unsigned long long>(hash));
  return buffer;
}

std::string to_hex(const Hash128& hash) {
  return to_hex(hash.high) + to_hex(hash.low);
}

StreamHash::StreamHash() : state_(std::make_unique<State>()) {
  CHECK(XXH3_128bits_reset(&state_->xxh) == XXH_OK);
}

StreamHash::~StreamHash() = default;
StreamHash::StreamHash(StreamHash&&) noexcept = default;
StreamHash& StreamHash::operator=(StreamHash&&) noexcept = default;

void StreamHash::update(std::span<const std::byte> bytes) {
  CHECK(XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size()) == XXH_OK);
}

void StreamHash::update(std::string_view text) {
  CHECK(XXH3_128bits_update(&state_->xxh, text.data(), text.size()) == XXH_OK);
}

uint64_t StreamHash::digest64() const {
  return XXH3_64bits_digest(&state_->xxh);
}

Hash128 StreamHash::digest128() const {
  return from_xxh(XXH3_128bits_digest(&state_->xxh));
}

}  // namespace millrace
