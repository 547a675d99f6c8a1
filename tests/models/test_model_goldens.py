#!/usr/bin/env python3
"""Every tiny model: logits and greedy tokens equal those of transformers, in every layout of batch and cache."""
import unittest

import model_golden
import program
from model_golden import Golden, compare

# Block sizes so small that every prompt crosses borders; threads and layouts change no token.
VARIANTS = {
    "default": [],
    "padded": ["--layout", "padded"],
    "contiguous": ["--kv-cache", "contiguous"],
    "small_blocks": ["--tokens-per-block", "8", "--threads", "1"],
    "padded_blocks": ["--layout", "padded", "--tokens-per-block", "16", "--threads", "2"],
    "deterministic": ["--deterministic"],
}

# Faults planted through config.json: the comparison must see each. (Those in code are in golden.json: `faults`.)
CONFIG_FAULTS = [
    ("llama_gqa", {"rope_parameters": {"rope_theta": 20000.0, "rope_type": "default"}}),
    ("llama_eps", {"rms_norm_eps": 1e-5}),
    ("llama_biases_tied", {"attention_bias": False}),
    ("llama_biases_tied", {"mlp_bias": False}),
    ("llama_linear", {"rope_scaling": None}),
    ("llama_dynamic", {"rope_scaling": {"type": "dynamic", "factor": 4.5}}),
    ("llama_yarn", {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}),
    ("mistral_window", {"sliding_window": 7}),
    ("mistral_window", {"sliding_window": 9}),
    ("mistral_window_long", {"sliding_window": None}),
    ("qwen2_window", {"max_window_layers": 2}),
    ("qwen2_tied", {"use_sliding_window": True, "max_window_layers": 0}),
    ("gpt2_inner", {"layer_norm_epsilon": 1e-5}),
    ("gpt2_layer_scale", {"scale_attn_by_inverse_layer_idx": False}),
    ("gptj", {"rotary_dim": 6}),
    ("gpt_neox", {"rotary_pct": 0.5}),
    ("gpt_neox_sequential", {"use_parallel_residual": True}),
    ("gpt_bigcode_untied", {"scale_attn_weights": True}),
    ("starcoder2_window", {"sliding_window": 11}),
    ("opt_post_norm", {"do_layer_norm_before": True}),
    ("opt_no_final_norm", {"_remove_final_layer_norm": False}),
    ("phi_qk_norm", {"qk_layernorm": False}),
    ("phi3_longrope", {"original_max_position_embeddings": 40}),
    ("stablelm_parallel", {"use_parallel_residual": False}),
    ("glm", {"partial_rotary_factor": 1.0}),
    ("qwen_bias", {"rotary_pct": 1.0}),
    ("qwen_long", {"use_dynamic_ntk": False}),
    ("qwen_long", {"use_logn_attn": False}),
    ("qwen_long_logn", {"seq_length": 21}),
    ("baichuan2_7b", {"z_loss_weight": None}),
    ("internlm_no_bias", {"rotary": None}),
    ("chatglm_ratio", {"rope_ratio": 45}),
    ("chatglm_residual", {"apply_residual_connection_post_layernorm": False}),
    ("gemma", {"rms_norm_eps": 0.02}),
    ("cohere", {"logit_scale": 0.7501}),
    ("cohere_qk_norm", {"layer_norm_eps": 1e-5}),
    ("cohere2_pattern", {"sliding_window_pattern": 3}),
    ("cohere2_pattern", {"sliding_window": 11}),
    ("olmo_clip", {"clip_qkv": None}),
    ("olmo_tied", {"clip_qkv": None}),
    ("olmo2_tied", {"rms_norm_eps": 1e-5}),
    ("olmo3", {"sliding_window": 9}),
    ("olmo3_layer_types", {"rope_parameters": {"rope_theta": 300000.0, "rope_type": "linear", "factor": 4.0}}),
    ("granite", {"embedding_multiplier": 1.51}),
    ("granite", {"residual_multiplier": 1.31}),
    ("granite", {"attention_multiplier": 0.41}),
    ("granite", {"logits_scaling": 0.7501}),
    ("nemotron", {"partial_rotary_factor": 0.25}),
    ("nemotron", {"hidden_act": "relu"}),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}),
    ("smollm3_interval", {"use_sliding_window": False}),
    ("mixtral", {"num_experts_per_tok": 1}),
    ("mixtral_window", {"sliding_window": 11}),
    ("qwen2_moe", {"norm_topk_prob": True}),
    ("qwen2_moe_sparse_step", {"mlp_only_layers": []}),
    ("qwen2_moe_window", {"max_window_layers": 1}),
    ("qwen3_moe", {"norm_topk_prob": False}),
    ("gpt_oss_layers", {"swiglu_alpha": 1.2}),
    ("gpt_oss_layers", {"swiglu_limit": 0.9}),
    ("gpt_oss", {"layer_types": ["full_attention", "sliding_attention"]}),
    ("deepseek_v2", {"first_k_dense_replace": 2}),
    ("deepseek_v2", {"rope_scaling": {"type": "yarn", "factor": 5.0, "original_max_position_embeddings": 32,
                                      "mscale": 0.707, "mscale_all_dim": 0.8}}),
    ("deepseek_v2_groups", {"topk_group": 3}),
    ("deepseek_v2_groups", {"routed_scaling_factor": 1.0}),
    ("deepseek_v3", {"topk_group": 2}),
    ("deepseek_v3", {"norm_topk_prob": False}),
    ("deepseek_v3_flat", {"rope_interleave": True}),
]


class ModelGoldens(program.ProgramTest):
    def compare_run(self, golden, variant, model=None, seed=None):
        prompts = self.prompts_file(f"{golden.name}.jsonl", *golden.inputs())
        logits_file = self.folder / f"{golden.name}.safetensors"
        logits_file.unlink(missing_ok=True)
        objects = self.objects(*golden.arguments(model, seed), "--input-file", prompts, "--logits-file", logits_file,
                               *VARIANTS[variant], schema="run")
        return compare(golden, objects, logits_file)

    def test_planted_faults(self):
        for name, changes in CONFIG_FAULTS:
            with self.subTest(model=name, **changes):
                golden = Golden(name)
                findings, _ = self.compare_run(golden, "default", self.tiny_model(f"fault_{name}", golden=name, **changes))
                self.assertNotEqual(findings, [])

    def test_quantised_cache_matters(self):
        """The recorded logits of an 8-bit cache are not those in fp32, nor those of the other type."""
        for recorded, other in (("int8", "fp32"), ("int8", "fp8"), ("fp8", "fp32")):
            with self.subTest(recorded=recorded, other=other):
                golden = Golden("llama_gqa", recorded)
                golden.kv_dtype = other
                findings, _ = self.compare_run(golden, "default")
                self.assertNotEqual(findings, [])

    def test_quantised_cache_is_refused(self):
        """Latent attention and attention over an encoder's output read floats only."""
        for name, op in (("deepseek_v2", "mla"), ("t5_relu", "cross")):
            for kind in ("int8", "fp8"):
                with self.subTest(model=name, kv_dtype=kind):
                    self.refused(rf"--kv-dtype {kind} is not supported for models with \w*{op}", "run", program.GOLDENS / name,
                                 "--dummy-weights", "--kv-dtype", kind, "--input-ids", "5,6", "--max-new-tokens", "1")

    def test_other_seed(self):
        findings, _ = self.compare_run(Golden("llama_gqa"), "default", seed=21)
        self.assertNotEqual(findings, [])

    def test_gemma_scales_embeddings_in_its_type(self):
        """torch.tensor(48**0.5) in float32, bfloat16 and float16, which transformers multiplies by."""
        for name in ("gemma", "gemma2", "gemma3"):
            for dtype, factor in (("fp32", 6.928203105926514), ("bf16", 6.9375), ("fp16", 6.9296875)):
                dump = self.folder / f"{name}_{dtype}"
                self.good("build", program.GOLDENS / name, "--dummy-weights=20", "--dtype", dtype, "-o", self.folder / "scaled.engine",
                          "--dump-graph", dump)
                line = next(line for line in (dump / "00_traced.ir").read_text().splitlines() if "rescale" in line)
                with self.subTest(model=name, dtype=dtype):
                    self.assertIn(f"{{factor={factor}}} @model.embed_tokens", line)

    def test_alone(self):
        """One prompt a run: the batch changes nothing."""
        for name in ("llama_gqa", "llama_dynamic", "llama_longrope", "mistral_window", "gpt2"):
            golden = Golden(name)
            for prompt in (golden.prompts[0], golden.prompts[-1]):
                ids = ",".join(map(str, prompt["input_ids"]))
                with self.subTest(model=name, tokens=len(prompt["input_ids"])):
                    output = self.outputs(*golden.arguments()[1:], "--input-ids", ids)[0]
                    self.assertEqual(output["output_ids"], prompt["output_ids"])
                    self.assertIsNone(output["text"])


def add_test(name, variant):
    def test(self):
        findings, _ = self.compare_run(Golden(name), variant)
        self.assertEqual(findings, [])

    setattr(ModelGoldens, f"test_{name}_{variant}", test)


for model in model_golden.names():
    for kind in VARIANTS:
        add_test(model, kind)


def add_quantised_test(name, kv_dtype, variant):
    def test(self):
        findings, _ = self.compare_run(Golden(name, kv_dtype), variant)
        self.assertEqual(findings, [])

    setattr(ModelGoldens, f"test_{name}_{kv_dtype}_{variant}", test)


for path in sorted(program.GOLDENS.glob("*/golden_*.json")):
    for kind in VARIANTS:
        add_quantised_test(path.parent.name, path.stem.removeprefix("golden_"), kind)


class RecordedFaults(unittest.TestCase):
    """What tools/golden.py measured: each planted fault is far outside the tolerance."""

    faint = {"gelu_exact"}  # the two forms of GELU are that close; ops/activation tells them apart

    def test_faults_would_fail(self):
        seen = set()
        for name in model_golden.names():
            golden = Golden(name)
            tolerance = golden.head["tolerance"]
            for fault, moved in golden.head["faults"].items():
                seen.add(fault)
                self.assertGreater(moved, tolerance * (1 if fault in self.faint else 10), f"{name}: {fault}")
        self.assertGreaterEqual(len(seen), 25)

    def test_tokens_are_told_apart(self):
        for name in model_golden.names():
            for prompt in Golden(name).prompts:
                self.assertGreater(min(prompt["leads"]), 1e-3 * prompt["largest_logit"], name)


if __name__ == "__main__":
    program.main()
