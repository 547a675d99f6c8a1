#!/usr/bin/env python3
"""Beam search on the command line: what is printed, where options come from, what is refused."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import GOLDENS, NOVELIST

TINY = ("--dummy-weights=20", *program.EXACT, "--ignore-eos", "--max-new-tokens", "12")
PROMPT = ("--input-ids", "5,9,100,33,7")


class Beams(program.ProgramTest):
    def model(self, name, **generation_config):
        folder = self.tiny_model(name)
        self.write(f"{name}/generation_config.json", json.dumps(generation_config))
        return folder

    def assert_same(self, mine, theirs):
        """The same sequences; other tactics may have computed them."""
        self.assertEqual([output["output_ids"] for output in mine], [output["output_ids"] for output in theirs])
        for a, b in zip(mine, theirs):
            self.assertAlmostEqual(a.get("score", 0), b.get("score", 0), delta=1e-4)

    def found(self, *arguments):
        return self.objects("run", *arguments, schema="run")[0]["outputs"]

    def test_text(self):
        arguments = ["run", NOVELIST, "The old house", "--num-beams", "4", "--max-new-tokens", "16", "--quiet"]
        outputs = self.objects(*arguments, "--num-return-sequences", "3", schema="run")[0]["outputs"]
        self.assertEqual(len(outputs), 3)
        scores = [output["score"] for output in outputs]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertEqual(self.good(*arguments).out, outputs[0]["text"] + "\n")
        several = self.good(*arguments, "--num-return-sequences", "3").out
        self.assertEqual(several, "".join(output["text"] + "\n" for output in outputs))

    def test_more_beams_find_better(self):
        """One beam is greedy; the best of several is at least as probable where length does not count."""
        arguments = [GOLDENS / "gpt2", *TINY, *PROMPT, "--length-penalty", "0"]
        greedy = self.found(*arguments, "--logprobs", "0")[0]
        self.assertNotIn("score", greedy)
        best = self.found(*arguments, "--num-beams", "8")[0]
        self.assertGreaterEqual(best["score"], greedy["cumulative_logprob"] - 1e-4)

    def test_generation_config(self):
        folder = self.model("configured", num_beams=3, num_return_sequences=2, length_penalty=2.0, do_sample=True, top_k=5)
        exact = [argument for argument in TINY if argument != "--greedy"]
        by_config = self.found(folder, *exact, *PROMPT)
        self.assert_same(by_config, self.found(GOLDENS / "llama_gqa", *TINY, *PROMPT, "--num-beams", "3", "--num-return-sequences",
                                               "2", "--length-penalty", "2"))
        self.assertEqual(len(by_config), 2)
        greedy = self.found(folder, *TINY, *PROMPT)
        self.assertEqual(len(greedy), 1)
        self.assertNotIn("score", greedy[0])
        self.refused("sampling with 3 beams is not supported", "run", folder, *exact, *PROMPT, "--temperature", "0.5")
        self.assertNotIn("score", self.found(folder, *exact, *PROMPT, "--temperature", "0.5", "--num-beams", "1")[0])

    def test_engine_files(self):
        engine = self.folder / "beams.engine"
        dummy = self.model("for_engine", num_beams=1)
        self.good("build", dummy, "--dummy-weights=20", "--dtype", "fp32", "--kv-dtype", "fp32", "--num-beams", "4", "-o", engine)
        rest = ["--greedy", "--ignore-eos", "--max-new-tokens", "12", *PROMPT]
        for beams in ("1", "2", "4"):
            self.assert_same(self.found(engine, *rest, "--num-beams", beams),
                             self.found(GOLDENS / "llama_gqa", *TINY, *PROMPT, "--num-beams", beams))
        self.refused("--num-beams contradicts the engine file, which was built with 4", "run", engine, *rest, "--num-beams", "5")

    def test_quantised_cache(self):
        """Beams find their pasts in 8 bits, too: each score is that of the sequence as a prompt of its own."""
        for kind in ("int8", "fp8"):
            model = [GOLDENS / "llama_gqa", "--dummy-weights=20", "--dtype", "fp32", "--kv-dtype", kind, "--greedy", "--ignore-eos"]
            for more in (["--tokens-per-block", "4"], ["--kv-cache", "contiguous"]):
                with self.subTest(kv_dtype=kind, more=more):
                    found = self.found(*model, *PROMPT, "--num-beams", "4", "--num-return-sequences", "4", "--length-penalty", "0",
                                       "--max-new-tokens", "12", *more)
                    for output in found:
                        ids = ",".join([PROMPT[1], *map(str, output["output_ids"])])
                        alone = self.objects("run", *model, "--input-ids", ids, "--max-new-tokens", "0", "--prompt-logprobs", "0",
                                             schema="run")[0]
                        logprobs = [entry["logprob"] for entry in alone["prompt_logprobs"][-len(output["output_ids"]):]]
                        self.assertAlmostEqual(output["score"], sum(logprobs), delta=1e-3)

    def test_batches_smaller_than_the_file(self):
        prompts = [{"input_ids": [5 + i, 9, 100]} for i in range(5)]
        file = self.prompts_file("many.jsonl", *prompts)
        arguments = [GOLDENS / "llama_gqa", *TINY, "--num-beams", "3", "--input-file", file]
        whole = [found["outputs"] for found in self.objects("run", *arguments, schema="run")]
        parts = [found["outputs"] for found in self.objects("run", *arguments, "--max-batch-size", "2", schema="run")]
        for mine, theirs in zip(whole, parts):
            self.assert_same(mine, theirs)
        self.assertEqual(len(parts), 5)

    def test_refused(self):
        run = ["run", GOLDENS / "llama_gqa", *TINY, *PROMPT]
        for pattern, *arguments in (
                ("0 is too small \\(--num-beams\\)", "--num-beams", "0"),
                ("num_beams is 65", "--num-beams", "65"),
                ("num_return_sequences is 3, num_beams 2", "--num-beams", "2", "--num-return-sequences", "3"),
                ("num_return_sequences is 2, num_beams 1", "--num-return-sequences", "2"),
                ("unknown value 'maybe' \\(--early-stopping\\)", "--num-beams", "2", "--early-stopping", "maybe"),
                ("logprobs is not supported with beams", "--num-beams", "2", "--logprobs", "1"),
                ("a stop text is not supported with beams", "--num-beams", "2", "--stop", "x"),
                ("logits of beams are not written", "--num-beams", "2", "--logits-file", self.folder / "x.safetensors")):
            with self.subTest(arguments=arguments):
                self.refused(pattern, *run, *arguments)
        line = self.prompts_file("line.jsonl", {"input_ids": [3], "num_beams": 2})
        self.refused('unknown key "num_beams"', "run", GOLDENS / "llama_gqa", *TINY, "--input-file", line)
        sampled = self.prompts_file("sampled.jsonl", {"input_ids": [3], "temperature": 0.5})
        self.refused("sampling is not supported with beams", "run", GOLDENS / "llama_gqa", *TINY, "--num-beams", "2",
                     "--input-file", sampled)


if __name__ == "__main__":
    program.main()
