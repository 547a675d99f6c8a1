#include "cli/result_json.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/str.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::ordered_json;

Json scores_to_json(const std::vector<TokenScore>& scores) {
  Json list = Json::array();
  for (const TokenScore& score : scores) {
    Json top = Json::array();
    for (const auto& [id, logprob] : score.top)
      top.push_back(Json::array({id, logprob}));
    list.push_back({{"id", score.id}, {"logprob", score.logprob}, {"top", std::move(top)}});
  }
  return list;
}

/// What the sequences of beam search and of everything else have in common.
Json output_to_json(const std::vector<int32_t>& ids, const std::optional<std::string>& text,
                    const char* finish_reason, Json stop_reason) {
  return {{"output_ids", ids},
          {"text", text ? Json(*text) : Json(nullptr)},
          {"finish_reason", finish_reason},
          {"stop_reason", std::move(stop_reason)}};
}

Json beams_to_json(const Result& result) {
  Json outputs = Json::array();
  for (size_t i = 0; i < result.output.beams.size(); ++i) {
    const BeamOutput& beam = result.output.beams[i];
    outputs.push_back(output_to_json(beam.output_ids, result.beam_texts[i],
                                     finish_reason_name(beam.finish_reason),
                                     beam.stop_token_id ? Json(*beam.stop_token_id) : nullptr));
    outputs.back()["score"] = beam.score;
  }
  return outputs;
}

}  // namespace

std::string result_to_json(size_t index, const Prompt& prompt, const Result& result) {
  const GenerationOutput& o = result.output;
  const bool by_text = result.stop_text.has_value();
  Json output = output_to_json(o.output_ids, result.text,
                               by_text ? "stop" : finish_reason_name(o.finish_reason),
                               by_text           ? Json(*result.stop_text)
                               : o.stop_token_id ? Json(*o.stop_token_id)
                                                 : Json(nullptr));
  if (prompt.sampling.logprobs) {
    double sum = 0;
    for (const TokenScore& score : o.logprobs)
      sum += score.logprob;
    output["cumulative_logprob"] = sum;
    output["logprobs"] = scores_to_json(o.logprobs);
  }
  const size_t tokens = o.output_ids.size();
  const double generation = result.total_s - result.first_token_s;
  const double rate =
      tokens > 1 && generation > 0 ? static_cast<double>(tokens - 1) / generation : 0;
  Json line = {{"index", index},
               {"input_ids", prompt.input_ids},
               {"outputs", o.beams.empty() ? Json::array({output}) : beams_to_json(result)}};
  if (prompt.sampling.prompt_logprobs) line["prompt_logprobs"] = scores_to_json(o.prompt_logprobs);
  line["seed"] = o.seed;
  line["timing"] = {{"setup_s", result.setup_s},
                    {"first_token_s", result.first_token_s},
                    {"total_s", result.total_s},
                    {"tokens_per_s", rate}};
  return json_line(line);
}

std::string ids_to_text(const std::vector<int32_t>& ids) {
  return join(ids, " ");
}

}  // namespace millrace::cli
