#!/usr/bin/env python3
"""`millrace perplexity` on the held-out novels against transformers (tests/data/models/perplexity.json)."""
import json
import lzma
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
from program import DRAFT, GOLDENS, NOVELIST, ROOT

FP32 = ("--dtype", "fp32", "--kv-dtype", "fp32")


def reference(model, tokens, kv_dtype="fp32"):
    entries = json.loads((GOLDENS / "perplexity.json").read_text())["entries"]
    wanted = (f"models/{model.name}", tokens, kv_dtype)
    return next(e["perplexity"] for e in entries if (e["model"], e["tokens"], e["kv_dtype"]) == wanted)


class Perplexity(program.ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = cls.folder / "novels.txt"
        cls.text.write_bytes(lzma.decompress((ROOT / "tests/data/text/novels-heldout.txt.xz").read_bytes()))

    def measure(self, model, tokens, *options):
        found = self.objects("perplexity", model, "--text-file", self.text, "--window", 1024, "--max-tokens", tokens, *options,
                             schema="perplexity", timeout=1000)
        self.assertEqual(len(found), 1)
        self.assertEqual(found[0]["tokens"], tokens)
        self.assertAlmostEqual(math.exp(found[0]["nll"]), found[0]["perplexity"], delta=1e-3 * found[0]["perplexity"])
        return found[0]["perplexity"]

    def test_whole_fp32(self):
        self.assertAlmostEqual(self.measure(NOVELIST, 131072, *FP32), 43.366, delta=0.005)

    def test_draft_fp32(self):
        self.assertAlmostEqual(self.measure(DRAFT, 131072, *FP32), 51.953, delta=0.005)

    def test_bf16(self):
        self.assertAlmostEqual(self.measure(NOVELIST, 16384, "--dtype", "bf16") / reference(NOVELIST, 16384), 1, delta=0.005)

    def test_quantised_cache(self):
        """transformers over a cache of the same type (tools/golden_quantised.py)."""
        for kind in ("int8", "fp8"):
            with self.subTest(kv_dtype=kind):
                found = self.measure(NOVELIST, 16384, "--dtype", "fp32", "--kv-dtype", kind)
                self.assertAlmostEqual(found, reference(NOVELIST, 16384, kind), delta=0.005)
                self.assertGreater(abs(found - reference(NOVELIST, 16384)), 0.005)

    def test_chunks_change_nothing(self):
        """Prompts longer than a step's tokens are computed in pieces."""
        wanted = reference(DRAFT, 16384)
        self.assertAlmostEqual(self.measure(DRAFT, 16384, *FP32, "--max-num-tokens", 192), wanted, delta=0.005)
        self.assertAlmostEqual(self.measure(DRAFT, 16384, *FP32, "--tokens-per-block", 16), wanted, delta=0.005)

    def test_text_output(self):
        result = self.good("perplexity", DRAFT, "--text-file", self.text, "--window", 256, "--max-tokens", 512, *FP32)
        self.assertRegex(result.out, r"(?i)perplexity")

    def test_short_text(self):
        short = self.write("short.txt", "Too short.")
        self.refused(r"short\.txt|window", "perplexity", DRAFT, "--text-file", short)

    def test_bad_input(self):
        self.refused(r"nowhere", "perplexity", DRAFT, "--text-file", self.folder / "nowhere")
        self.refused(r"window", "perplexity", DRAFT, "--text-file", self.text, "--window", 0)
        self.refused(r"2048", "perplexity", DRAFT, "--text-file", self.text, "--window", 4096)
        self.refused(r"text-file", "perplexity", DRAFT)


if __name__ == "__main__":
    program.main()
