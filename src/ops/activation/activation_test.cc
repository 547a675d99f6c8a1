#include "ops/activation/activation.h"

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ops/common/activation_kind.h"
#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

ir::Attrs kind_attrs(const std::string& kind) {
  return to_attrs(Activation{.kind = kind});
}

// transformers' ACT2FN in float64.
TEST(Activation, EqualsTransformers) {
  const HostTensor x = host_floats({10}, {-20, -6, -3.5F, -1.25F, -0.1F, 0, 0.3F, 1, 2.75F, 9});
  const auto check = [&](const char* kind, const std::vector<double>& want) {
    SCOPED_TRACE(kind);
    const std::vector<float> got = call_op("activation", kind_attrs(kind), {x})[0].floats();
    ASSERT_EQ(got.size(), want.size());
    const std::vector<float> inputs = x.floats();
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(got[i], want[i], 1e-7 * std::fabs(inputs[i])) << inputs[i];
  };
  check("silu", {-4.122307236380407e-08, -0.014835738939808647, -0.10259280762974712,
                 -0.27837517353163604, -0.047502081252106004, 0.0, 0.1723327550434977,
                 0.7310585786300049, 2.584761712021479, 8.998889448816124});
  check("gelu",
        {-0.0, -5.919525869479969e-09, -0.0008142017766243903, -0.13206221708356905,
         -0.0460172162722971, 0.0, 0.1853734266566858, 0.841344746068543, 2.7418056511035998, 9.0});
  for (const char* kind : {"gelu_new", "gelu_pytorch_tanh", "gelu_fast"}) {
    check(kind, {-0.0, -8.43964897967453e-11, -0.0006161976553737403, -0.13228579703028537,
                 -0.04601724895456484, 0.0, 0.18537092354275922, 0.8411919906082768,
                 2.742276855926382, 9.0});
  }
  check("relu", {0, 0, 0, 0, 0, 0, 0.3, 1, 2.75, 9});
  check("relu2", {0, 0, 0, 0, 0, 0, 0.09, 1, 7.5625, 81});
  check("quick_gelu", {-3.2934102413993747e-14, -0.00022035354978739243, -0.009033446134780122,
                       -0.13306569855683067, -0.04575524191638182, 0, 0.1874841353815917,
                       0.8457957659328212, 2.724729832290826, 8.999997996822012});
}

/// Floats of every exponent and both signs up to 2^7 in magnitude.
std::vector<float> all_magnitudes() {
  std::vector<float> values;
  for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(128.0F); bits += 9973) {
    values.push_back(std::bit_cast<float>(bits));
    values.push_back(-values.back());
  }
  return values;
}

// What ops/common/vec_math.h states, for every tactic that can run here.
TEST(Activation, IsAccurateAtEveryMagnitude) {
  const std::vector<float> values = all_magnitudes();
  const HostTensor x = host_floats({static_cast<int64_t>(values.size())}, values);
  const auto device = device::make_cpu_device(1);
  for (const char* kind : {"silu", "gelu", "gelu_new", "quick_gelu"}) {
    for (const Tactic& tactic : find_op("activation")->tactics) {
      if (tactic.why_not != nullptr && !tactic.why_not({}, device->properties()).empty()) continue;
      SCOPED_TRACE(str(kind, " by ", tactic.name));
      const std::vector<float> got =
          call_op("activation", kind_attrs(kind), {x}, tactic.name)[0].floats();
      double worst = 0, worst_relative = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        const double exact = apply_activation(*parse_activation(kind), double{values[i]});
        const double error = std::fabs(got[i] - exact);
        if (std::fabs(values[i]) > 1e-30) worst = std::max(worst, error / std::fabs(values[i]));
        // The tail of silu is that of the exponential: accurate until it is subnormal.
        if (values[i] < -1 && values[i] > -80) {
          worst_relative = std::max(worst_relative, error / std::fabs(exact));
        }
      }
      EXPECT_LT(worst, 1.6e-7);
      if (std::string(kind) == "silu") {
        EXPECT_LT(worst_relative, 3 * 0x1p-23);
      }
    }
  }
}

TEST(Activation, KnowsTheNamesOfConfigFiles) {
  EXPECT_EQ(parse_activation("swish"), ActivationKind::kSilu);
  EXPECT_EQ(parse_activation("gelu_new"), ActivationKind::kGeluTanh);
  EXPECT_EQ(parse_activation(""), ActivationKind::kNone);
  EXPECT_EQ(parse_activation("mish"), std::nullopt);
  EXPECT_EQ(refusal("activation", {{kF32, {4}}}, kind_attrs("mish")),
            "unknown activation \"mish\" (activation)");
}

}  // namespace
}  // namespace millrace::ops
