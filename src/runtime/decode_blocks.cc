// The cache of a decode's sequences: which slot each takes and what it finds there, the blocks that
// it holds and gives back.
#include <algorithm>

#include "base/check.h"
#include "runtime/decode_batch.h"

namespace millrace::runtime {

std::vector<int64_t> DecodeBatch::rope_variants(int prompt_length) const {
  std::vector<int64_t> variants;
  for (const ops::RopeScaling& rope : ropes_) {
    variants.push_back(ops::rope_variant(rope, prompt_length));
  }
  return variants;
}

int DecodeBatch::reusable_prefix(const Sequence& sequence, const Slot& slot) const {
  // With an encoder, every row depends on the whole input.
  if (limits_.encoder.kind != engine::ModelKind::kDecoder) return 0;
  if (sequence.all_rows || slot.rope_variants != rope_variants(sequence.prompt_length())) return 0;
  const std::vector<int32_t>& ids = sequence.request.input_ids;
  // The last prompt token always runs: its logits choose the first new token.
  const size_t most = std::min(slot.tokens.size(), ids.size() - 1);
  size_t common = 0;
  // What a virtual token stands for may have changed.
  while (common < most && slot.tokens[common] == ids[common] && ids[common] < limits_.vocab_size)
    ++common;
  // What lies behind a window may be gone; what the next position sees must be there.
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int first =
        groups_[g].window > 0 ? std::max(0, static_cast<int>(common) - groups_[g].window + 1) : 0;
    const int tokens = blocks_[g].tokens_per_block();
    for (size_t position = 0; position < common; position += static_cast<size_t>(tokens)) {
      const bool visible = static_cast<int>(position) + tokens > first ||
                           static_cast<int>(position) < groups_[g].sink_tokens;
      if (visible && slot.blocks[g][position / static_cast<size_t>(tokens)] == kNoBlock) return 0;
    }
  }
  return static_cast<int>(common);
}

// Longest prefixes first: each request gets the best slot that is left.
void DecodeBatch::assign_slots() {
  for (size_t taken = 0; taken < sequences_.size(); ++taken) {
    int best_sequence = -1, best_slot = -1, best = -1;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      if (sequences_[i].slot >= 0) continue;
      for (size_t s = 0; s < slots_.size(); ++s) {
        if (slots_[s].sequence >= 0) continue;
        const int prefix = reusable_prefix(sequences_[i], slots_[s]);
        // Of slots without use, an empty one: what others remember may serve later.
        const bool emptier = prefix == best && best_slot >= 0 && slots_[s].tokens.empty() &&
                             !slots_[static_cast<size_t>(best_slot)].tokens.empty() &&
                             best_sequence == static_cast<int>(i);
        if (prefix <= best && !emptier) continue;
        best = prefix;
        best_sequence = static_cast<int>(i);
        best_slot = static_cast<int>(s);
      }
    }
    Sequence& sequence = sequences_[static_cast<size_t>(best_sequence)];
    Slot& slot = slots_[static_cast<size_t>(best_slot)];
    sequence.slot = best_slot;
    sequence.computed = best;
    slot.sequence = best_sequence;
    slot.tokens.resize(static_cast<size_t>(best));
    slot.rope_variants = rope_variants(sequence.prompt_length());
    for (size_t g = 0; g < groups_.size(); ++g)
      blocks_[g].truncate(slot.blocks[g], best);
  }
}

void DecodeBatch::extend_blocks(Sequence& sequence, int tokens) {
  // First, so that a sequence never holds more than its window and one step, also when a step is
  // under way: steps run in order, so that one is done with these blocks before they are written.
  release_behind_windows(sequence);
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int positions = groups_[g].cross ? sequence.encoder.length : tokens;
    grow(g, slot.blocks[g], positions);
    for (auto& lists : slot.beam_blocks)
      grow(g, lists[g], positions);
  }
  int64_t used = 0;
  for (const KvBlocks& pool : blocks_)
    used += pool.num_blocks() - pool.num_free();
  blocks_used_peak_ = std::max(blocks_used_peak_, used);
}

void DecodeBatch::grow(size_t group, BlockList& list, int tokens) {
  while (!blocks_[group].grow(list, tokens)) {
    // Only caches that idle slots remember can be in the way: setup() gave room for every
    // sequence.
    const auto idle = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) {
      return s.sequence < 0 && !s.tokens.empty();
    });
    CHECK(idle != slots_.end(), "the KV pool is too small for the batch");
    idle->tokens.clear();
    for (size_t g = 0; g < groups_.size(); ++g)
      blocks_[g].truncate(idle->blocks[g], 0);
  }
}

void DecodeBatch::release_behind_windows(Sequence& sequence) {
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g].window == 0) continue;
    const auto release = [&](BlockList& list) {
      blocks_[g].release_before(list, std::max(0, sequence.computed - groups_[g].window + 1),
                                groups_[g].sink_tokens);
    };
    release(slot.blocks[g]);
    for (auto& lists : slot.beam_blocks)
      release(lists[g]);
  }
}

// The prompt stays in the first beam's blocks, where all find it: the cache indirection says so.
// What a beam writes goes to blocks of its own, from the prompt's partial last block on.
void DecodeBatch::fork_beams(Sequence& sequence) {
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  slot.beam_blocks.resize(static_cast<size_t>(limits_.beams - 1));
  for (auto& lists : slot.beam_blocks) {
    for (size_t g = 0; g < groups_.size(); ++g) {
      const int tokens = blocks_[g].tokens_per_block();
      // What an encoder made is never written again: all beams read it.
      const int whole =
          groups_[g].cross ? sequence.encoder.length : sequence.prompt_length() / tokens * tokens;
      lists.push_back(blocks_[g].share_prefix(slot.blocks[g], whole));
    }
  }
}

// Steps run in order: one that is under way is done with the blocks before another writes them.
void DecodeBatch::release_beams(Slot& slot) {
  for (auto& lists : slot.beam_blocks) {
    for (size_t g = 0; g < groups_.size(); ++g)
      blocks_[g].truncate(lists[g], 0);
  }
  slot.beam_blocks.clear();
}

void DecodeBatch::check_integrity() const {
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<const BlockList*> lists;
    for (const Slot& slot : slots_) {
      lists.push_back(&slot.blocks[g]);
      for (const auto& beam : slot.beam_blocks)
        lists.push_back(&beam[g]);
    }
    blocks_[g].check_integrity(lists);
  }
}

}  // namespace millrace::runtime
