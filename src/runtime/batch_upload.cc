#include "runtime/batch_upload.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "ops/common/beam_row.h"
#include "ops/common/sequence_inputs.h"

namespace millrace::runtime {
namespace {

class Upload {
 public:
  Upload(const Batch& batch, const UploadContext& context, StepBuffers& buffers)
      : batch_(batch), context_(context), buffers_(buffers) {}

  StepShape run() {
    const auto sequences = static_cast<int>(batch_.sequences.size());
    shape_.sequences = std::max(sequences, context_.padded_rows);
    CHECK(sequences > 0 && shape_.sequences <= context_.limits.max_sequences);
    place_rows();
    for (int s = 0; s < sequences; ++s)
      sequence(s);
    if (shape_.sequences > sequences) pad(sequences);
    block_tables();
    return std::move(shape_);
  }

 private:
  const StepSequence& at(int s) const { return batch_.sequences[static_cast<size_t>(s)]; }

  // A padded layout is this row map and nothing else: every sequence gets as many rows as the
  // longest.
  void place_rows() {
    int longest = 0;
    for (const StepSequence& sequence : batch_.sequences) {
      longest = std::max(longest, sequence.num_tokens());
    }
    for (const StepSequence& sequence : batch_.sequences) {
      shape_.first_row.push_back(shape_.rows);
      shape_.rows += batch_.padded ? longest : sequence.num_tokens();
    }
    CHECK(shape_.rows <= context_.limits.max_num_tokens, shape_.rows, " rows");
    std::fill_n(buffers_.host(StepBuffers::kInputIds), shape_.rows, 0);
    std::fill_n(buffers_.host("position_ids"), shape_.rows, 0);
  }

  void sequence(int s) {
    const StepSequence& sequence = at(s);
    const int count = sequence.num_tokens(), start = shape_.first_row[static_cast<size_t>(s)];
    int32_t* ids = buffers_.host(StepBuffers::kInputIds) + start;
    int32_t* positions = buffers_.host("position_ids") + start;
    if (sequence.tokens.empty()) {
      // The token is in the history on the device: merge_ids looks it up.
      ids[0] = -1 - (sequence.slot * context_.history_length + sequence.past_length);
    } else {
      std::transform(sequence.tokens.begin(), sequence.tokens.end(), ids, [&](int32_t id) {
        // Virtual tokens are rows of the slot's part of the prompt table.
        const bool is_virtual =
            context_.limits.prompt_table_rows > 0 && id >= context_.limits.vocab_size;
        return is_virtual ? id + sequence.slot * context_.limits.prompt_table_rows : id;
      });
      prompt_segment(sequence, start);
    }
    for (int i = 0; i < count; ++i)
      positions[i] = sequence.past_length + i;

    const SlotSampling& slot = context_.slots[static_cast<size_t>(sequence.slot)];
    set("context_lengths", s, slot.packed.row.prompt_length);
    set("sequence_length", s, sequence.past_length + count);
    set("query_start", s, start);
    set("query_length", s, count);
    set("host_query_length", s, count);
    set("host_request_types", s, sequence.is_context ? 0 : 1);
    set("host_past_key_value_lengths", s, sequence.past_length);
    shape_.length_class =
        std::max(shape_.length_class, ops::length_class(sequence.past_length + count));
    set(StepBuffers::kSequenceSlots, s, sequence.slot);
    set("encoder_input_lengths", s, sequence.encoder_length);
    if (sequence.is_context) {
      CHECK(shape_.context_sequences == s, "a context sequence after a generation sequence");
      ++shape_.context_sequences;
    }
    if (sequence.sample) sampled(s, start + count - 1, slot);
  }

  // A row for each sequence that is not there: it embeds token 0 and nobody looks at what comes
  // out.
  void pad(int sequences) {
    CHECK(shape_.rows == sequences && shape_.sampled == sequences && batch_.beams == 1);
    CHECK(shape_.sequences <= context_.limits.max_num_tokens, shape_.sequences, " rows");
    for (int s = sequences; s < shape_.sequences; ++s) {
      buffers_.host(StepBuffers::kInputIds)[s] = 0;
      for (const char* array :
           {"position_ids", "context_lengths", "sequence_length", "query_length",
            "host_query_length", "host_past_key_value_lengths", StepBuffers::kSequenceSlots,
            "encoder_input_lengths", StepBuffers::kTargetCounts}) {
        set(array, s, 0);
      }
      set("query_start", s, s);
      set("host_request_types", s, 1);
      set("last_token_ids", s, s);
      const ops::SamplingRow nobody;  // has no slot
      std::memcpy(buffers_.host(StepBuffers::kSamplingRows) + int64_t{s} * ops::kSamplingRowWords,
                  &nobody, sizeof nobody);
    }
    shape_.rows = shape_.sampled = shape_.sequences;
  }

  void prompt_segment(const StepSequence& sequence, int start) {
    int32_t* segment =
        buffers_.host(StepBuffers::kPromptSegments) + int64_t{4} * shape_.prompt_segments++;
    segment[0] = sequence.slot;
    segment[1] = sequence.past_length;
    segment[2] = start;
    segment[3] = static_cast<int32_t>(sequence.tokens.size());
  }

  void sampled(int s, int row, const SlotSampling& slot) {
    const StepSequence& sequence = at(s);
    ops::SamplingRow record = ops::sampling_row_at(
        slot.packed, sequence.slot, sequence.past_length + sequence.num_tokens(), slot.list_offset);
    if (batch_.logits_processor) record.flags |= ops::kSamplingAdjusts;  // a copy of the row
    shape_.adjusts = shape_.adjusts || (record.flags & ops::kSamplingAdjusts) != 0;
    std::memcpy(buffers_.host(StepBuffers::kSamplingRows) +
                    int64_t{shape_.sampled} * ops::kSamplingRowWords,
                &record, sizeof record);
    if (batch_.beams > 1) beam(s, record);
    set("last_token_ids", shape_.sampled, row);
    set(StepBuffers::kTargetCounts, shape_.sampled, batch_.logprobs);
    shape_.sampled_sequence.push_back(s);
    ++shape_.sampled;
  }

  // The first of a request's rows makes its record.
  void beam(int s, const ops::SamplingRow& row) {
    const StepSequence& sequence = at(s);
    const int number = sequence.slot % batch_.beams;
    if (number > 0) {
      CHECK(s > 0 && at(s - 1).slot == sequence.slot - 1, "beams that are not neighbours");
      return;
    }
    const SlotSampling& slot = context_.slots[static_cast<size_t>(sequence.slot)];
    ops::BeamRow record{.slot = sequence.slot,
                        .first_row = shape_.sampled,
                        .rows = sequence.is_context ? 1 : batch_.beams,
                        .length = row.length,
                        .prompt_length = row.prompt_length,
                        .end_ids = slot.packed.beam_ends};
    record.end_ids.offset += slot.list_offset;
    std::memcpy(
        buffers_.host(StepBuffers::kBeams) + int64_t{shape_.beam_requests} * ops::kBeamRowWords,
        &record, sizeof record);
    shape_.beam_sequence.push_back(s);
    ++shape_.beam_requests;
  }

  // [groups, S, M]
  void block_tables() {
    int32_t* table = buffers_.host(StepBuffers::kBlockTables);
    const int width = std::max(1, context_.limits.max_blocks);
    const auto sequences = static_cast<int>(batch_.sequences.size());
    for (int g = 0; g < context_.limits.num_groups; ++g) {
      for (int s = 0; s < shape_.sequences; ++s, table += width) {
        if (s >= sequences) continue;  // without rows nothing is looked up
        const BlockList& blocks = at(s).blocks[static_cast<size_t>(g)];
        CHECK(static_cast<int>(blocks.size()) <= width, "a sequence of ", blocks.size(), " blocks");
        std::copy(blocks.begin(), blocks.end(), table);
      }
    }
  }

  void set(const char* array, int index, int32_t value) { buffers_.host(array)[index] = value; }

  const Batch& batch_;
  const UploadContext& context_;
  StepBuffers& buffers_;
  StepShape shape_;
};

}  // namespace

int row_bucket(int rows, int most) {
  int power = 1;
  while (rows > power + (power >= 8 ? power / 2 : 0))
    power *= 2;
  return std::min(rows <= power ? power : power + power / 2, most);
}

StepShape fill_step_buffers(const Batch& batch, const UploadContext& context,
                            StepBuffers& buffers) {
  return Upload(batch, context, buffers).run();
}

}  // namespace millrace::runtime
