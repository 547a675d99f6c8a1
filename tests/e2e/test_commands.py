#!/usr/bin/env python3
"""The smaller commands: tokenize, inspect, explain, bench, cache, build; what they print follows docs/schemas/."""
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import DRAFT, GOLDENS, NOVELIST
from tensor_file import read_header

TINY = (GOLDENS / "llama_gqa", "--dummy-weights=20", "--dtype", "fp32")


class Tokenize(program.ProgramTest):
    prompts = json.loads((GOLDENS / "novelist_14m/golden.json").read_text())["prompts"]

    def test_ids(self):
        for prompt in self.prompts:
            found = self.objects("tokenize", NOVELIST, prompt["prompt"], schema="tokenize")[0]
            self.assertEqual(found["ids"], prompt["input_ids"])
            self.assertEqual(len(found["tokens"]), len(found["ids"]))

    def test_standard_input(self):
        prompt = self.prompts[1]
        self.assertEqual(self.objects("tokenize", NOVELIST, stdin=prompt["prompt"], schema="tokenize")[0]["ids"],
                         prompt["input_ids"])

    def test_decode(self):
        for prompt in self.prompts:
            ids = ",".join(map(str, prompt["output_ids"]))
            self.assertEqual(self.good("tokenize", NOVELIST, "--decode", ids).out.rstrip("\n"), prompt["text"].rstrip("\n"))
            self.assertEqual(self.objects("tokenize", NOVELIST, "--decode", ids, schema="tokenize")[0]["text"], prompt["text"])

    def test_chat(self):
        text = self.good("tokenize", NOVELIST, "--chat", "Write about the sea.").out
        self.assertIn("Write about the sea.", text)
        self.assertGreater(len(text), len("Write about the sea.") + 8)

    def test_bad(self):
        self.refused(r"4096", "tokenize", NOVELIST, "--decode", "4096")
        self.refused(r"decode", "tokenize", NOVELIST, "--decode", "1,x")
        self.refused(r"tokenizer", "tokenize", GOLDENS / "gpt2", "text")


class Inspect(program.ProgramTest):
    def test_folder(self):
        found = self.objects("inspect", NOVELIST, schema="inspect")[0]
        self.assertEqual((found["kind"], found["architecture"]), ("folder", "LlamaForCausalLM"))
        stored = {}
        for shard in NOVELIST.glob("*.safetensors"):
            stored.update(read_header(shard)[0])
        self.assertEqual({t["name"]: t["shape"] for t in found["tensors"]}, {n: e["shape"] for n, e in stored.items()})
        count = 0
        for entry in stored.values():
            product = 1
            for extent in entry["shape"]:
                product *= extent
            count += product
        self.assertEqual(found["parameters"], count)
        self.assertIn("LlamaForCausalLM", self.good("inspect", NOVELIST).out)

    def test_engine(self):
        engine = self.folder / "draft.engine"
        self.good("build", DRAFT, "-o", engine, "--dtype", "fp32", "--max-batch-size", 4, "--max-seq-len", 512)
        found = self.objects("inspect", engine, schema="inspect")[0]
        self.assertEqual((found["kind"], found["architecture"]), ("engine", "LlamaForCausalLM"))
        self.assertEqual((found["limits"]["max_batch_size"], found["limits"]["max_seq_len"]), (4, 512))
        for shard in DRAFT.glob("*.safetensors"):
            self.assertRegex(found["provenance"]["source"], rf"{shard.name} {shard.stat().st_size} [0-9a-f]+")
        verified = self.objects("inspect", engine, "--verify", schema="inspect")[0]
        self.assertTrue(verified["verified"])


class Explain(program.ProgramTest):
    def test_operations(self):
        found = self.objects("explain", *TINY, schema="explain")
        ops = {row["op"] for row in found}
        self.assertTrue({"matmul", "attention_context", "attention_generation", "rope_append"} <= ops, ops)
        self.assertEqual({row["regime"] for row in found}, {"context", "generation"})
        for row in found:
            if row["op"] == "matmul":
                self.assertTrue(row["tactic"])
                self.assertGreater(row["flops"], 0)
        self.assertIn("matmul", self.good("explain", *TINY).out)

    def test_measure(self):
        found = self.objects("explain", *TINY, "--measure", schema="explain")
        self.assertTrue(all(row["time_us"] >= 0 for row in found))

    def test_measured_text(self):
        """Each operation's share of the roof is its roof by its time, both rounded to a decimal; so are all together."""
        text = self.good("explain", *TINY, "--measure").out
        rows = [tuple(map(float, row)) for row in re.findall(r"(?m)^ *(\d+\.\d) +(\d+\.\d) +(\d+\.\d)%  ?", text)]
        self.assertGreater(len(rows), 20, text)
        self.assertEqual(text.count("%  all\n"), 2)
        for time, roof, share in rows:
            self.assertGreaterEqual(share + 0.06, 100 * (roof - 0.05) / (time + 0.05))
            if time > 0.1:
                self.assertLessEqual(share - 0.06, 100 * (roof + 0.05) / (time - 0.05))
        unmeasured = self.good("explain", *TINY).out
        self.assertRegex(unmeasured, r"(?m)^ *- +\d+\.\d +- ")
        self.assertNotIn("%", unmeasured)

    def test_small_build_memory(self):
        """Tactics are chosen anew, though there is an engine in the cache; those that do not fit are named."""
        self.good("explain", *TINY)
        result = self.good("explain", *TINY, "--json", "--max-build-memory", "10KiB")
        dropped = [line for line in result.err.splitlines() if "dropped" in line]
        self.assertTrue(dropped, result.err[:1000])
        for line in dropped:
            self.assertRegex(line, r"^millrace: note: tactic \w+ dropped for \w+\{.*: its trial needs .*, the limit is 10.0 KiB$")
        self.assertTrue(all(row["tactic"] for row in program.json_lines(result.out)))
        self.assertNotIn("dropped", self.good("explain", *TINY).err)


class Bench(program.ProgramTest):
    sizes = ("--input-len", 16, "--output-len", 8)

    def test_latency(self):
        found = self.objects("bench", "latency", *TINY, *self.sizes, "--batch-size", 2, schema="bench_latency")[0]
        self.assertEqual((found["input_len"], found["output_len"], found["batch_size"]), (16, 8, 2))
        self.assertGreater(found["latency_s"]["p50"], 0)
        # Five runs of a prompt's step and seven more. On the CPU nothing is captured.
        self.assertEqual(found["graphs"], {"steps": 40, "replayed": 0, "captures": 0})

    def test_throughput(self):
        found = self.objects("bench", "throughput", *TINY, *self.sizes, "--num-prompts", 5, schema="bench_throughput")[0]
        self.assertEqual((found["num_prompts"], found["input_tokens"], found["output_tokens"]), (5, 80, 40))

    def test_op_check(self):
        found = self.objects("bench", "op", "--check", "--op", "rms_norm", schema="bench_op_check")[0]
        self.assertEqual(found["failures"], [])

    def test_op_times(self):
        found = self.objects("bench", "op", "--op", "rms_norm", schema="bench_op")
        self.assertEqual({row["op"] for row in found}, {"rms_norm"})

    def test_bad(self):
        self.refused(r"speed", "bench", "speed")
        self.refused(r"input-len", "bench", "latency", *TINY, "--input-len", 0)
        self.refused(r"128", "bench", "latency", *TINY, "--input-len", 120, "--output-len", 20)
        self.refused(r"no_such_op", "bench", "op", "--op", "no_such_op")


class Build(program.ProgramTest):
    def test_dump_graph(self):
        dump = self.folder / "dump"
        self.good("build", *TINY, "-o", self.folder / "a.engine", "--dump-graph", dump)
        names = sorted(path.name for path in dump.iterdir())
        self.assertGreater(len(names), 5)
        self.assertTrue(any("lower_attention" in name for name in names), names)

    def test_disable_pass(self):
        self.good("build", *TINY, "-o", self.folder / "b.engine", "--disable-pass", "merge_qkv")
        self.refused(r"no_such_pass", "build", *TINY, "-o", self.folder / "c.engine", "--disable-pass", "no_such_pass")
        self.assertFalse((self.folder / "c.engine").exists())

    def test_small_build_memory(self):
        """Tactics that do not fit are dropped and named; the build goes on, and so do the tokens."""
        engine = self.folder / "small.engine"
        result = self.good("build", *TINY, "-o", engine, "--max-build-memory", "1KiB")
        self.assertRegex(result.err, r"(?m)^millrace: note: tactic \w+ dropped for matmul\{.*, the limit is 1.00 KiB$")
        self.refused("max-build-memory", "explain", engine, "--max-build-memory", "1GiB")
        golden = json.loads((GOLDENS / "llama_gqa/golden.json").read_text())
        prompt = golden["prompts"][3]
        output = self.outputs(engine, *program.EXACT, "--ignore-eos", "--max-new-tokens", 32, "--input-ids",
                              ",".join(map(str, prompt["input_ids"])))[0]
        self.assertEqual(output["output_ids"], prompt["output_ids"])

    def test_timing_cache(self):
        cache = self.folder / "timings"
        self.good("build", *TINY, "-o", self.folder / "d.engine", "--timing-cache", cache)
        self.assertTrue(cache.is_file())
        self.good("build", *TINY, "-o", self.folder / "e.engine", "--timing-cache", cache)
        cache.write_text("not a timing cache")
        self.good("build", *TINY, "-o", self.folder / "f.engine", "--timing-cache", cache)


if __name__ == "__main__":
    program.main()
