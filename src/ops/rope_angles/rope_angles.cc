#include "ops/rope_angles/rope_angles.h"

#include <memory>
#include <utility>

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/rope_angles/rope_angles_tactics.h"

namespace millrace::ops {
namespace {

constexpr const char* kInputNames[] = {"position_ids", "context_lengths", "query_start",
                                       "query_length"};

#if defined(MILLRACE_CUDA)
std::string why_not_cuda(const Launch& launch, const device::Properties&) {
  if (launch.attrs<RopeAngles>().rotary_dim / 2 <= kMaxCudaFrequencies) return "";
  return str("needs at most ", kMaxCudaFrequencies, " frequencies");
}
#endif

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "rope_angles_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = why_not_cuda,
                      .run = rope_angles_cuda}, ){.name = "rope_angles_ref",
                                                  .run = rope_angles_ref},
};

RopeScaling scaling_of(const RopeAngles& a) {
  const auto rule = parse_rope_rule(a.rule);
  if (!rule) {
    throw_bad_input(str("unknown rotary scaling rule \"", a.rule, "\""), "rope_angles",
                    "known are default, linear, dynamic, llama3, yarn, longrope and ntk_steps");
  }
  return {.rule = *rule,
          .rotary_dim = a.rotary_dim,
          .theta = a.theta,
          .factor = a.factor,
          .max_position = a.max_position,
          .original_max_position = a.original_max_position,
          .attention_factor = a.attention_factor,
          .low_freq_factor = a.low_freq_factor,
          .high_freq_factor = a.high_freq_factor,
          .beta_fast = a.beta_fast,
          .beta_slow = a.beta_slow,
          .mscale = a.mscale,
          .mscale_all_dim = a.mscale_all_dim,
          .truncate = a.truncate,
          .short_factor = a.short_factor,
          .long_factor = a.long_factor};
}

/// What rope_frequencies requires, asked of the user.
void check_attributes(const RopeAngles& a) {
  if (a.rotary_dim < 2 || a.rotary_dim % 2 != 0) {
    throw_bad_input(str("rotary_dim must be even and positive, got ", a.rotary_dim), "rope_angles");
  }
  if (!(a.theta > 0)) throw_bad_input(str("theta must be positive, got ", a.theta), "rope_angles");
  const RopeRule rule = scaling_of(a).rule;
  if (rule != RopeRule::kDefault && !(a.factor > 0)) {
    throw_bad_input(str("factor must be positive, got ", a.factor), "rope_angles");
  }
  const bool changes_theta = rule == RopeRule::kDynamic || rule == RopeRule::kNtkSteps;
  if (changes_theta && (!(a.max_position > 0) || a.rotary_dim == 2)) {
    throw_bad_input(str("rule ", a.rule, " needs max_position and a rotary_dim above 2"),
                    "rope_angles");
  }
  if ((rule == RopeRule::kLlama3 || rule == RopeRule::kYarn || rule == RopeRule::kLongRope) &&
      !(a.original_max_position > 0)) {
    throw_bad_input(str("rule ", a.rule, " needs original_max_position"), "rope_angles");
  }
  const auto half = static_cast<size_t>(a.rotary_dim / 2);
  if (rule == RopeRule::kLongRope &&
      (a.short_factor.size() != half || a.long_factor.size() != half)) {
    throw_bad_input(str("rule longrope needs ", half, " short and long factors, got ",
                        a.short_factor.size(), " and ", a.long_factor.size()),
                    "rope_angles");
  }
}

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<RopeAngles>(attrs);
  check_attributes(a);
  if (in.size() != std::size(kInputNames)) {
    throw_bad_input(str("expected ", std::size(kInputNames), " inputs, got ", in.size()));
  }
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i].dtype != ir::DType::kI32 || in[i].shape.size() != 1) {
      throw_bad_input(str(kInputNames[i], " must be i32 of rank 1, got ", ir::to_string(in[i])));
    }
  }
  return {{ir::DType::kF32, {in[0].shape[0], a.rotary_dim}}};
}

std::shared_ptr<const void> parse(const ir::Attrs& attrs) {
  auto a = from_attrs<RopeAngles>(attrs);
  check_attributes(a);
  // As the base class, so that Launch::attrs<RopeAngles>() holds.
  const std::shared_ptr<const RopeAngles> plan =
      std::make_shared<const RopeAnglesPlan>(std::move(a));
  return plan;
}

Cost cost(const Launch& launch) {
  const auto elements = static_cast<double>(launch.out[0].count());
  return {.bytes = 4 * (elements + static_cast<double>(launch.in[0].count())), .flops = elements};
}

}  // namespace

RopeAnglesPlan::RopeAnglesPlan(RopeAngles attributes)
    : RopeAngles(std::move(attributes)), scaling(scaling_of(*this)) {
  usual = rope_frequencies(scaling, 1);
  if (scaling.rule == RopeRule::kLongRope) {
    longer = rope_frequencies(scaling, static_cast<int64_t>(original_max_position) + 1);
  }
}

const RopeFrequencies& RopeAnglesPlan::frequencies(int64_t prompt_length,
                                                   RopeFrequencies* made) const {
  if (rope_variant(scaling, prompt_length) == rope_variant(scaling, 1)) return usual;
  if (scaling.rule == RopeRule::kLongRope) return longer;
  *made = rope_frequencies(scaling, prompt_length);
  return *made;
}

const Op& op_rope_angles() {
  static const Op op = {.name = "rope_angles",
                        .tactics = kTactics,
                        .infer = infer,
                        .parse_attrs = parse,
                        .cost = cost};
  return op;
}

}  // namespace millrace::ops
