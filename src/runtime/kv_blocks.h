// Blocks of KV storage as numbers with reference counts: pure host code, no memory, no device. One
// KvBlocks per group of layers; a sequence holds one BlockList per group. GenerationSession and the
// serving scheduler both use it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace millrace {

/// The blocks of one sequence in one group, in order of position. kNoBlock stands where a block
/// behind the window has been given back.
using BlockList = std::vector<int32_t>;
inline constexpr int32_t kNoBlock = -1;

class KvBlocks {
 public:
  KvBlocks(int64_t num_blocks, int tokens_per_block);

  int tokens_per_block() const { return tokens_per_block_; }
  int64_t num_blocks() const { return static_cast<int64_t>(references_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t blocks_for(int64_t tokens) const {
    return (tokens + tokens_per_block_ - 1) / tokens_per_block_;
  }

  /// A block with one reference, or nothing when all are in use.
  std::optional<int32_t> allocate();
  /// One more sequence holds the block.
  void share(int32_t block);
  /// One holder less; the block is free when it was the last.
  void release(int32_t block);
  int32_t references(int32_t block) const { return references_[static_cast<size_t>(block)]; }

  /// Makes the list long enough for `tokens` tokens. False, with the list as it was, when too few
  /// blocks are free.
  bool grow(BlockList& list, int64_t tokens);
  /// Gives back the blocks behind position `tokens`.
  void truncate(BlockList& list, int64_t tokens);
  /// Gives back the blocks that hold only positions before `first_visible`, but none that holds one
  /// of the first `sink_tokens`: what a sliding window no longer sees.
  void release_before(BlockList& list, int64_t first_visible, int64_t sink_tokens);
  /// A list that holds the first `tokens` tokens of `list` too. Whole blocks are shared; a last
  /// partial block is shared as well and must be made own (make_last_own) before it is written.
  BlockList share_prefix(const BlockList& list, int64_t tokens);
  /// What copy-on-write needs before position `tokens - 1`'s block is written: the block to copy
  /// from and the new one that takes its place, or nothing when the block is the sequence's own.
  /// REQUIRES: a free block when it is shared.
  struct Copy {
    int32_t from, to;
  };
  std::optional<Copy> make_last_own(BlockList& list, int64_t tokens);

  /// Aborts unless every block's references are exactly its appearances in `lists`, and every other
  /// block is free once.
  void check_integrity(std::span<const BlockList* const> lists) const;

 private:
  int tokens_per_block_;
  std::vector<int32_t> references_;  // by block
  std::vector<int32_t> free_;        // a stack: the block freed last is warm
};

}  // namespace millrace
