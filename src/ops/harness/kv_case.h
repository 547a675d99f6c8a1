// Made-up steps for ops that take the sequence inputs: ragged sequences whose keys and values lie
// in a pool of blocks, as the runtime would lay them out and worse.
//
// Blocks are in random order. Behind the block numbers that a sequence needs stand numbers of no
// block, and every slot that no sequence uses holds NaN. What a slot holds follows from (seed,
// sequence, plane, head, position, element) alone, so that two cases which differ in layout only
// must give the same results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/common/kv_cache_view.h"
#include "ops/common/sequence_rows.h"
#include "ops/harness/cases.h"
#include "ops/op.h"

namespace millrace::ops {

struct KvCaseSequence {
  int past = 0;  // tokens in the cache before this step
  int rows = 1;  // tokens of this step
  RequestType type = RequestType::kContext;
};

struct KvCaseSpec {
  std::vector<KvCaseSequence> sequences;
  int kv_heads = 1;
  int k_size = 64, v_size = 64;
  ir::DType dtype = ir::DType::kF32;
  int tokens_per_block = 16;    // 0: contiguous, one block per sequence
  int row_gap = 0;              // rows that no sequence owns, before each sequence
  bool has_new_tokens = true;   // the step's own K and V are in the cache already
  int freed_before_window = 0;  // window W > 0: blocks that lie wholly behind it are freed
  int sink_tokens = 0;          // but these stay
  /// K > 0: generation sequences are beams, K consecutive ones of a request, of equal lengths. At
  /// each position of their past they have changed places among each other.
  int beams = 0;
  uint64_t seed = 1;
};

enum class KvPlane { kK, kV };

class KvCase {
 public:
  /// Lays out the step; the pool is made when it is asked for.
  explicit KvCase(const KvCaseSpec& spec);
  void fill_pool();

  const KvCaseSpec& spec() const { return spec_; }
  int64_t rows() const { return rows_; }
  int64_t num_sequences() const { return static_cast<int64_t>(spec_.sequences.size()); }

  /// What the cache holds, or will hold, rounded to its type.
  float value(KvPlane plane, int64_t sequence, int64_t head, int64_t position, int64_t d) const;
  /// The element as it lies in the pool now.
  float stored(KvPlane plane, int64_t sequence, int64_t head, int64_t position, int64_t d) const;

  /// Makes a slot look unused.
  void clear(KvPlane plane, int64_t sequence, int64_t head, int64_t position);

  /// The sequence inputs and the cache, filled, pointing into this object.
  std::vector<Tensor> tensors();
  /// The beam inputs.
  std::vector<Tensor> beam_tensors();

  std::vector<int32_t> sequence_length, query_start, query_length, request_type, past_length;
  std::vector<int32_t> block_offsets;  // [groups, S, M]
  int64_t blocks_per_sequence = 0;     // M
  std::vector<int32_t> indirection;    // [S, positions] by slot, with beams
  std::vector<int32_t> beam_slots;     // [S]
  int64_t positions = 0;               // N
  std::vector<std::byte> pool;         // empty until fill_pool()
  KvCacheView view;                    // pool's pointer is set by tensors()

  static constexpr int kGroups = 2;  // of which the case uses the second

 private:
  void fill_slot(KvPlane plane, int64_t sequence, int64_t head, int64_t position);
  void number_rows();
  void lay_out_blocks();
  void shuffle_beams();
  int64_t holder(int64_t sequence, int64_t position) const;
  bool is_freed(const KvCaseSequence& sequence, int64_t block) const;
  int64_t block(int64_t sequence, int64_t position) const;
  int64_t slot_offset(KvPlane plane, int64_t sequence, int64_t head, int64_t position) const;
  int64_t scale_offset(KvPlane plane, int64_t sequence, int64_t head, int64_t position) const;
  // What value() is the product of; scales are 1 where the cache has none.
  float scale(KvPlane plane, int64_t sequence, int64_t head, int64_t position) const;
  float element(KvPlane plane, int64_t sequence, int64_t head, int64_t position, int64_t d) const;

  KvCaseSpec spec_;
  int64_t rows_ = 0;
  int64_t num_blocks_ = 0;
};

/// A number in [-1.7, 1.7), of variance 1, that follows from its arguments.
float hashed_value(uint64_t seed, uint64_t a, uint64_t b = 0, uint64_t c = 0);

/// The sequence inputs and the cache of a harness case.
std::vector<InputSpec> kv_inputs(const KvCaseSpec& spec);
/// The beam inputs of a case with beams.
std::vector<InputSpec> beam_inputs(const KvCaseSpec& spec);

}  // namespace millrace::ops
