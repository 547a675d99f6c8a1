#include "runtime/kv_blocks.h"

#include <algorithm>

#include "base/check.h"

namespace millrace {

KvBlocks::KvBlocks(int64_t num_blocks, int tokens_per_block)
    : tokens_per_block_(tokens_per_block), references_(static_cast<size_t>(num_blocks), 0) {
  CHECK(tokens_per_block > 0);
  free_.reserve(references_.size());
  for (int64_t b = num_blocks; b-- > 0;)
    free_.push_back(static_cast<int32_t>(b));
}

std::optional<int32_t> KvBlocks::allocate() {
  if (free_.empty()) return std::nullopt;
  const int32_t block = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(block)] = 1;
  return block;
}

void KvBlocks::share(int32_t block) {
  CHECK(references(block) > 0, "shared a free block ", block);
  ++references_[static_cast<size_t>(block)];
}

void KvBlocks::release(int32_t block) {
  CHECK(references(block) > 0, "released a free block ", block);
  if (--references_[static_cast<size_t>(block)] == 0) free_.push_back(block);
}

bool KvBlocks::grow(BlockList& list, int64_t tokens) {
  const int64_t wanted = blocks_for(tokens) - static_cast<int64_t>(list.size());
  if (wanted > num_free()) return false;
  for (int64_t i = 0; i < wanted; ++i)
    list.push_back(*allocate());
  return true;
}

void KvBlocks::truncate(BlockList& list, int64_t tokens) {
  const auto keep = static_cast<size_t>(blocks_for(tokens));
  while (list.size() > keep) {
    if (list.back() != kNoBlock) release(list.back());
    list.pop_back();
  }
}

void KvBlocks::release_before(BlockList& list, int64_t first_visible, int64_t sink_tokens) {
  const int64_t whole =
      std::min(first_visible / tokens_per_block_, static_cast<int64_t>(list.size()));
  for (int64_t b = blocks_for(sink_tokens); b < whole; ++b) {
    int32_t& block = list[static_cast<size_t>(b)];
    if (block != kNoBlock) release(block);
    block = kNoBlock;
  }
}

BlockList KvBlocks::share_prefix(const BlockList& list, int64_t tokens) {
  const auto count = static_cast<size_t>(blocks_for(tokens));
  CHECK(count <= list.size(), "shared more than there is");
  BlockList shared(list.begin(), list.begin() + static_cast<int64_t>(count));
  for (const int32_t block : shared) {
    if (block != kNoBlock) share(block);
  }
  return shared;
}

std::optional<KvBlocks::Copy> KvBlocks::make_last_own(BlockList& list, int64_t tokens) {
  int32_t& last = list.at(static_cast<size_t>(blocks_for(tokens) - 1));
  if (references(last) == 1) return std::nullopt;
  const std::optional<int32_t> own = allocate();
  CHECK(own.has_value(), "no free block for a copy");
  const Copy copy{last, *own};
  release(last);
  last = *own;
  return copy;
}

void KvBlocks::check_integrity(std::span<const BlockList* const> lists) const {
  std::vector<int32_t> seen(references_.size(), 0);
  for (const BlockList* list : lists) {
    for (const int32_t block : *list) {
      if (block != kNoBlock) ++seen.at(static_cast<size_t>(block));
    }
  }
  std::vector<char> is_free(references_.size(), 0);
  for (const int32_t block : free_) {
    CHECK(is_free[static_cast<size_t>(block)] == 0, "block ", block, " is free twice");
    is_free[static_cast<size_t>(block)] = 1;
  }
  for (size_t b = 0; b < seen.size(); ++b) {
    CHECK(seen[b] == references_[b], "block ", b, " is held ", seen[b], " times and counted ",
          references_[b]);
    CHECK((seen[b] == 0) == (is_free[b] != 0), "block ", b, " is neither held nor free");
  }
}

}  // namespace millrace
