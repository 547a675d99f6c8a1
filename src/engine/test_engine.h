// An engine for tests that is as small as one with a bit of everything can be.
#pragma once

#include <string>

#include "engine/plan.h"

namespace millrace::engine {

inline Engine small_engine() {
  Engine e;
  e.manifest = {.model = "small",
                .architecture = "LlamaForCausalLM",
                .version = "0.1.0",
                .commit = "abc",
                .dtype = "fp32",
                .kv_dtype = "f32",
                .device = "cpu",
                .device_name = "a machine",
                .isa = "scalar",
                .options = "--dtype fp32",
                .source = "0123",
                .vocab_size = 100,
                .max_positions = 64,
                .parameters = 6,
                .max_batch_size = 2,
                .max_beam_width = 1,
                .max_seq_len = 64,
                .max_num_tokens = 8,
                .untimed = true};
  e.graph = ir::parse(
      "graph g { dim T <= 8 %0: f32[T, 2] = input() {name=\"x\"} "
      "%1: f32[3, 2] = weight() {name=\"w\"} %2: state[] = input() {name=\"kv.0\"} "
      "%3: f32[T, 3] = matmul(%0, %1) return y=%3 }",
      "test");
  e.launches = {{.node = 3, .choices = {{1, "rows"}, {8, "reference"}}}};
  e.regimes = {{"context", {{"T", 8}}, 256, {{}, {}, {}, {0, 128}}, {{128, 64}}},
               {"generation", {{"T", 2}}, 128, {{}, {}, {}, {64, 64}}, {{0, 64}}}};
  e.captures = {{0, 1, true}};
  e.kv_groups = {{2, 4, 6, 16, 3, {"kv.0"}}};
  e.weights = {
      {.name = "w",
       .shape = {3, 2},
       .dtype = ir::DType::kF32,
       .transposed = false,
       .slices = {{0, 64, 1, 8, ir::DType::kF32, "w.a"}, {0, 128, 2, 4, ir::DType::kBF16, "w.b"}}}};
  e.files = {{"/nowhere/model.safetensors", 1000, 123456789012345678, "beef"}};
  e.dummy_seed = 0xffffffffffffffff;
  e.assets = {{"tokenizer.json", std::string("\0\xff\xfe{}\n", 6)}, {"empty", ""}, {"a", "b"}};
  return e;
}

}  // namespace millrace::engine
