// The inputs that tell attention ops which rows belong to which sequence. Every op that takes them
// takes all of them, in this order, as consecutive inputs; S sequences are in the step, those with
// a prompt (or a piece of one) first.
//
// Sequence s owns rows [query_start[s], query_start[s] + query_length[s]) of the step's T rows.
// They are the tokens at positions sequence_length[s] - query_length[s] up to sequence_length[s] -
// 1; the tokens before are in the cache already. In a padded layout some rows belong to no
// sequence: ops neither read nor write them. Names with host_ are copies in host memory: they
// choose the regime and sizes of launches; no captured launch reads them.
#pragma once

#include <cstdint>

namespace millrace::ops {

enum SequenceInput {
  kSequenceLength,    // i32 [S] tokens of the sequence after this step
  kQueryStart,        // i32 [S] its first row in this step
  kQueryLength,       // i32 [S] how many rows it has; 0 is legal
  kHostRequestTypes,  // i32 [S] 0: context phase, 1: generation phase
  kHostPastLengths,   // i32 [S] host_past_key_value_lengths: tokens in the cache before this step
  kHostQueryLength,   // i32 [S]
  kBlockOffsets,  // i32 [groups, S, M] kv_cache_block_offsets: block numbers, in order of position
  kNumSequenceInputs,
};

/// How long the longest sequence of a step is, roughly. Kernels may be chosen by that: steps of
/// different classes are never replays of one captured step.
inline int length_class(int64_t tokens) {
  constexpr int64_t kShort = 3072, kMiddling = 7680;
  return tokens <= kShort ? 0 : tokens <= kMiddling ? 1 : 2;
}

/// What attention of beams takes in addition, as its last inputs (attribute `beams`). Beams of a
/// request are consecutive sequences of the step and have consecutive slots; each finds some of its
/// past in the blocks of the others.
enum BeamInput {
  kCacheIndirection,  // i32 [R, N] by slot and position: how many sequences further on the one is
                      // whose blocks hold keys and values; 0: its own
  kSequenceSlots,     // i32 [S] the slot of each sequence
  kNumBeamInputs,
};

}  // namespace millrace::ops
