#!/usr/bin/env python3
"""Models, files and prompts that cannot work: one line that says what, where and what to do; exit status 2."""
import json
import pathlib
import shutil
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import DRAFT, EXACT, GOLDENS, NOVELIST
from tensor_file import read_header, write_tensors


class BadInput(program.ProgramTest):
    def refuse_model(self, pattern, model, *options):
        self.refused(pattern, "run", model, *EXACT, "--json", "--input-ids", "3,4", "--max-new-tokens", 2, *options)


class Folder(BadInput):
    def test_missing(self):
        self.refuse_model(r"/nonexistent/model", "/nonexistent/model")
        self.refuse_model(r"no-such-org/no-such-model.*; ", "no-such-org/no-such-model")

    def test_no_config(self):
        (self.folder / "bare").mkdir()
        self.refuse_model(r"config\.json.*bare", self.folder / "bare")

    def test_config_is_not_json(self):
        self.write("broken/config.json", "{\"vocab_size\": ")
        self.refuse_model(r"config\.json", self.folder / "broken", "--dummy-weights")
        self.write("list/config.json", "[]")
        self.refuse_model(r"config\.json", self.folder / "list", "--dummy-weights")

    def test_config_is_a_folder(self):
        (self.folder / "odd/config.json").mkdir(parents=True)
        self.refuse_model(r"config\.json", self.folder / "odd", "--dummy-weights")

    def test_unknown_architecture(self):
        model = self.tiny_model("unknown", architectures=["MambaForCausalLM"], model_type="mamba")
        self.refuse_model(r"MambaForCausalLM.*; ", model, "--dummy-weights")
        model = self.tiny_model("encoder", architectures=["PegasusForConditionalGeneration"], model_type="pegasus")
        self.refuse_model(r"PegasusForConditionalGeneration", model, "--dummy-weights")

    def test_a_file_that_is_no_engine(self):
        self.refuse_model(r"notes\.txt", self.write("notes.txt", "just text, longer than any header\n" * 40))
        self.refuse_model(r"empty\.engine", self.write("empty.engine", ""))

    def test_only_bin_weights(self):
        model = self.tiny_model("bin")
        (model / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
        self.refuse_model(r"\.bin.*; .*safetensors", model)

    def test_no_weights(self):
        self.refuse_model(r"safetensors", self.tiny_model("weightless"))


class Config(BadInput):
    """Sizes that are 0, negative, huge or of the wrong type; the key is named."""

    def test_sizes(self):
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                    "num_key_value_heads", "max_position_embeddings", "head_dim"):
            for value in (0, -1, 10**18, "48", 1.5, [48]):
                with self.subTest(key=key, value=value):
                    model = self.tiny_model(f"{key}_{str(value)[:5].strip('[')}", **{key: value})
                    self.refuse_model(key, model, "--dummy-weights")

    def test_missing_sizes(self):
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            with self.subTest(key=key):
                self.refuse_model(key, self.tiny_model(f"without_{key}", without=[key]), "--dummy-weights")

    def test_others(self):
        for key, value, pattern in [
                ("hidden_act", "swishy", r"hidden_act|swishy"), ("hidden_act", 3, "hidden_act"),
                ("rms_norm_eps", "small", "rms_norm_eps"), ("rms_norm_eps", -1.0, "rms_norm_eps"),
                ("tie_word_embeddings", "yes", "tie_word_embeddings"), ("attention_bias", 1.5, "attention_bias"),
                ("num_key_value_heads", 5, "num_key_value_heads"), ("head_dim", 7, "head_dim"),
                ("architectures", "LlamaForCausalLM", "architectures"),
                ("rope_parameters", {"rope_type": "spiral", "rope_theta": 1e4}, "spiral"),
                ("rope_parameters", {"rope_type": "default", "rope_theta": -5}, "rope_theta"),
                ("rope_parameters", {"rope_type": "linear", "rope_theta": 1e4}, "factor"),
                ("rope_parameters", {"rope_type": "linear", "factor": "two", "rope_theta": 1e4}, "factor"),
                ("rope_parameters", {"rope_type": "longrope", "factor": 4.0, "rope_theta": 1e4, "short_factor": [1.0],
                                     "long_factor": [1.0], "original_max_position_embeddings": 24}, "short_factor|long_factor"),
                ("rope_parameters", "default", "rope_parameters"),
                ("quantization_config", {"quant_method": "gptq", "bits": 4}, "gptq|quantization_config")]:
            with self.subTest(key=key, value=value):
                model = self.tiny_model("config_other", **{key: value})
                self.refuse_model(pattern, model, "--dummy-weights")

    def test_gpt2(self):
        for key, value in [("n_embd", 0), ("n_head", 5), ("n_layer", -1), ("n_positions", "128"), ("n_inner", 0),
                           ("activation_function", "wobble")]:
            with self.subTest(key=key, value=value):
                self.refuse_model(key, self.tiny_model("gpt2_other", golden="gpt2", **{key: value}), "--dummy-weights")

    def test_too_large_for_the_machine(self):
        """Refused before anything is loaded, with the numbers."""
        model = self.tiny_model("large", hidden_size=16384, intermediate_size=65536, num_hidden_layers=200,
                                num_attention_heads=128, num_key_value_heads=8, head_dim=128, vocab_size=128000)
        result = program.run("run", model, "--dummy-weights", *EXACT, "--input-ids", "3", "--max-new-tokens", 1, timeout=60)
        self.assertIn(result.status, (1, 2), result)
        self.assertRegex(result.err.splitlines()[-1], r"^millrace: error: .*[0-9.]+ ?[GT]i?B.*")


class Weights(BadInput):
    def tensors(self):
        """Names and shapes of a tiny checkpoint."""
        hidden, inner, heads, kv_heads, size = 48, 101, 6, 2, 8
        found = {"model.embed_tokens.weight": [160, hidden], "model.norm.weight": [hidden], "lm_head.weight": [160, hidden]}
        for layer in range(2):
            prefix = f"model.layers.{layer}."
            found.update({
                prefix + "input_layernorm.weight": [hidden], prefix + "post_attention_layernorm.weight": [hidden],
                prefix + "self_attn.q_proj.weight": [heads * size, hidden],
                prefix + "self_attn.k_proj.weight": [kv_heads * size, hidden],
                prefix + "self_attn.v_proj.weight": [kv_heads * size, hidden],
                prefix + "self_attn.o_proj.weight": [hidden, heads * size], prefix + "mlp.gate_proj.weight": [inner, hidden],
                prefix + "mlp.up_proj.weight": [inner, hidden], prefix + "mlp.down_proj.weight": [hidden, inner]})
        return found

    def model(self, name, tensors, dtype="F32"):
        folder = self.tiny_model(name)
        write_tensors(folder / "model.safetensors", tensors, dtype)
        return folder

    def test_good(self):
        """The folder that the others change does run."""
        output = self.outputs(self.model("good", self.tensors()), *EXACT, "--input-ids", "3,4", "--max-new-tokens", 2)[0]
        self.assertEqual(output["output_ids"], [0, 0])

    def test_missing_tensor(self):
        tensors = self.tensors()
        del tensors["model.layers.1.mlp.up_proj.weight"]
        self.refuse_model(r"model\.layers\.1\.mlp\.up_proj\.weight", self.model("missing", tensors))

    def test_extra_tensor(self):
        tensors = self.tensors() | {"model.layers.0.self_attn.q_proj.bias": [48]}
        self.refuse_model(r"model\.layers\.0\.self_attn\.q_proj\.bias", self.model("extra", tensors))

    def test_known_extras_are_skipped(self):
        tensors = self.tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": [4]}
        model = self.model("inv_freq", tensors)
        result = self.good("run", model, *EXACT, "--json", "--input-ids", "3,4", "--max-new-tokens", 2)
        self.assertIn("inv_freq", result.err)

    def test_wrong_shape(self):
        tensors = self.tensors()
        tensors["model.layers.0.self_attn.k_proj.weight"] = [48, 48]
        self.refuse_model(r"model\.layers\.0\.self_attn\.k_proj\.weight.*48.*16|k_proj\.weight.*16.*48",
                          self.model("shape", tensors))

    def test_wrong_rank(self):
        tensors = self.tensors()
        tensors["model.norm.weight"] = [48, 1]
        self.refuse_model(r"model\.norm\.weight", self.model("rank", tensors))

    def test_wrong_type(self):
        self.refuse_model(r"I64|int64|i64", self.model("integers", self.tensors(), "I64"))

    def test_layers_beyond_config(self):
        model = self.model("deeper", self.tensors())
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
        self.refuse_model(r"model\.layers\.1\.", model)

    def test_truncated(self):
        model = self.model("truncated", self.tensors())
        path = model / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        self.refuse_model(r"model\.safetensors", model)

    def test_hostile_header(self):
        for name, data in [("huge_header", struct.pack("<Q", 1 << 62) + b"{}"), ("not_json", struct.pack("<Q", 4) + b"{{{{"),
                           ("short", b"\x01"), ("empty", b"")]:
            with self.subTest(name):
                model = self.tiny_model(name)
                (model / "model.safetensors").write_bytes(data)
                self.refuse_model(r"model\.safetensors", model)

    def test_missing_shard(self):
        model = self.copy_of(NOVELIST, "shardless")
        (model / "model-00002-of-00003.safetensors").unlink()
        self.refuse_model(r"model-00002-of-00003\.safetensors", model)

    def test_shard_outside(self):
        model = self.copy_of(NOVELIST, "outside")
        index = model / "model.safetensors.index.json"
        index.write_text(index.read_text().replace("model-00002-of-00003", "../model-00002-of-00003"))
        self.refuse_model(r"index\.json", model)


class Prompt(BadInput):
    def test_too_long(self):
        ids = ",".join(["5"] * 200)
        model = GOLDENS / "llama_gqa"
        self.refused(r"200.*128|128.*200", "run", model, "--dummy-weights", *EXACT, "--json", "--input-ids", ids)
        self.refused(r"200.*64|64.*200", "run", model, "--dummy-weights", *EXACT, "--json", "--input-ids", ids, "--max-seq-len", 64)

    def test_prompt_and_new_tokens_too_long(self):
        self.refused(r"128", "run", GOLDENS / "llama_gqa", "--dummy-weights", *EXACT, "--json", "--input-ids",
                     ",".join(["5"] * 100), "--max-new-tokens", 60)

    def test_seq_len_beyond_learned_positions(self):
        self.refused(r"128", "run", GOLDENS / "gpt2", "--dummy-weights", *EXACT, "--json", "--input-ids", "3", "--max-seq-len",
                     256)

    def test_empty(self):
        self.refused(r"(?i)empty", "run", GOLDENS / "llama_gqa", "--dummy-weights", *EXACT, "--input-ids", "")
        file = self.write("empty.txt", "")
        self.refused(r"(?i)empty", "run", DRAFT, *EXACT, "--prompt-file", file)
        self.refused(r"(?i)empty", "run", DRAFT, *EXACT, stdin="")

    def test_ids(self):
        for ids, pattern in [("160", "160"), ("3,4,99999", "99999"), ("-1", "-1"), ("3,x", "input-ids"), ("1e3", "input-ids"), ("99999999999999999999", "input-ids")]:
            with self.subTest(ids=ids):
                self.refused(pattern, "run", GOLDENS / "llama_gqa", "--dummy-weights", *EXACT, f"--input-ids={ids}")

    def test_text_needs_a_tokenizer(self):
        self.refused(r"tokenizer.*; .*input-ids", "run", GOLDENS / "llama_gqa", "--dummy-weights", *EXACT, "The sea")

    def test_chat_needs_a_template(self):
        model = self.copy_of(DRAFT, "untold")
        path = model / "tokenizer_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"}))
        (model / "chat_template.jinja").unlink(missing_ok=True)
        self.refused(r"(?i)template", "run", model, *EXACT, "--chat", "The sea")

    def test_not_utf8(self):
        self.refused(r"(?i)utf-8", "run", DRAFT, *EXACT, stdin=b"caf\xe9")

    def test_missing_prompt_file(self):
        self.refused(r"nowhere\.txt", "run", DRAFT, *EXACT, "--prompt-file", self.folder / "nowhere.txt")


class Tokenizer(BadInput):
    def test_does_not_fit_the_vocabulary(self):
        """A tokenizer that makes ids the model has no rows for."""
        model = self.tiny_model("misfit")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(DRAFT / name, model / name)
        self.refused(r"(?i)tokenizer.*(4096|160)", "run", model, "--dummy-weights", *EXACT, "The sea")

    def test_broken(self):
        model = self.copy_of(DRAFT, "broken_tokenizer")
        (model / "tokenizer.json").write_text("{\"version\": \"1.0\", \"model\": {\"type\": \"Magic\"}}")
        self.refused(r"tokenizer\.json", "run", model, *EXACT, "The sea")


class Files(BadInput):
    def test_logits_file_cannot_be_written(self):
        result = program.run("run", DRAFT, *EXACT, "--json", "--input-ids", "3", "--max-new-tokens", 1, "--logits-file",
                             "/nonexistent/folder/logits.safetensors")
        self.assertIn(result.status, (1, 2), result)
        self.assertRegex(result.err.splitlines()[-1], r"^millrace: error: .*/nonexistent/folder")

    def test_headers_are_as_expected(self):
        """The tests above change what the real file holds."""
        header, _ = read_header(DRAFT / "model.safetensors")
        self.assertIn("model.norm.weight", header)


if __name__ == "__main__":
    program.main()
