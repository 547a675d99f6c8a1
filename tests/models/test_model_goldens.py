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

    def test_other_seed(self):
        findings, _ = self.compare_run(Golden("llama_gqa"), "default", seed=21)
        self.assertNotEqual(findings, [])

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
