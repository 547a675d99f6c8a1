#!/usr/bin/env python3
"""Every model with a beams.json: the ids and scores of beam search equal those of transformers, in a batch and alone."""
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import model_golden
import program

SCORE_TOLERANCE = 1e-4
FLOAT_STEPS = 2.4e-7  # two units in the last place: scores that a negative length penalty multiplies are large
INPUTS = ("input_ids", "input_features")
NAMES = sorted(path.parent.name for path in program.GOLDENS.glob("*/beams.json"))


def flags(options):
    """Options by transformers' names as those of the command line."""
    given = []
    for key, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        given += [f"--{key.replace('_', '-')}", text]
    return given


def differences(found, wanted, end_tokens):
    """What is wrong with the outputs of one prompt."""
    if len(found) != len(wanted):
        return [f"{len(found)} sequences, not {len(wanted)}"]
    wrong = []
    for place, (mine, theirs) in enumerate(zip(found, wanted)):
        if mine["output_ids"] != theirs["output_ids"]:
            wrong.append(f"sequence {place}: {mine['output_ids']}, not {theirs['output_ids']}")
        if not abs(mine["score"] - theirs["score"]) <= SCORE_TOLERANCE + FLOAT_STEPS * abs(theirs["score"]):
            wrong.append(f"sequence {place}: score {mine['score']}, not {theirs['score']}")
        ends = theirs["output_ids"][-1] in end_tokens
        if mine["finish_reason"] != ("stop" if ends else "length"):
            wrong.append(f"sequence {place}: finish_reason is {mine['finish_reason']}")
    return wrong


class BeamGoldens(program.ProgramTest):
    def run_entry(self, name, entry, *more, prompts=None):
        golden = json.loads((program.GOLDENS / name / "beams.json").read_text())
        config = json.loads((program.GOLDENS / name / "config.json").read_text())
        prompts = prompts or entry["prompts"]
        file = self.prompts_file(f"{name}.jsonl", *({key: p[key] for key in INPUTS if key in p} for p in prompts))
        stops = entry["stop_token_ids"]
        arguments = ["run", program.GOLDENS / name, f"--dummy-weights={golden['seed']}", *program.EXACT,
                     "--max-new-tokens", golden["max_new_tokens"], "--input-file", file, *flags(entry["options"]), *more]
        if golden["ignore_eos"]:
            arguments.append("--ignore-eos")
        if stops:
            arguments += ["--stop-token-ids", ",".join(map(str, stops))]
        configured = config.get("eos_token_id")
        ends = set(stops) | (set() if golden["ignore_eos"] else set(configured if isinstance(configured, list) else [configured]))
        wrong = []
        for i, (prompt, found) in enumerate(zip(prompts, self.objects(*arguments, schema="run"))):
            wrong += [f"prompt {i}, {entry['options']}: {text}" for text in differences(found["outputs"], prompt["outputs"], ends)]
        return wrong

    def entries(self, name):
        return json.loads((program.GOLDENS / name / "beams.json").read_text())["entries"]

    def test_layouts(self):
        """Neither blocks nor threads nor the layout of prompts change what is found."""
        for more in (["--tokens-per-block", "4", "--threads", "1"], ["--kv-cache", "contiguous"], ["--layout", "padded"],
                     ["--deterministic"], ["--max-num-tokens", "16"]):
            for name in ("llama_gqa", "mistral_window"):
                with self.subTest(model=name, more=more):
                    self.assertEqual(self.run_entry(name, self.entries(name)[1], *more), [])

    def test_alone(self):
        """One prompt a run: the batch changes nothing."""
        for entry in self.entries("llama_gqa")[:3]:
            for prompt in entry["prompts"]:
                self.assertEqual(self.run_entry("llama_gqa", entry, prompts=[prompt]), [])

    def test_options_that_matter(self):
        """Each option changes what is found, so that the comparisons above are worth something."""
        entries = self.entries("llama_gqa")
        for entry in entries:
            for key in set(entry["options"]) - {"num_beams", "num_return_sequences"}:
                options = {k: v for k, v in entry["options"].items() if k != key}
                with self.subTest(without=key):
                    self.assertNotEqual(self.run_entry("llama_gqa", entry | {"options": options}), [])


def add_test(name):
    def test(self):
        wrong = [text for entry in self.entries(name) for text in self.run_entry(name, entry)]
        self.assertEqual(wrong, [])

    setattr(BeamGoldens, f"test_{name}", test)


for model in NAMES:
    add_test(model)


class Recorded(unittest.TestCase):
    def test_every_model_that_generates_has_beams(self):
        for name in model_golden.names():
            architecture = json.loads((program.GOLDENS / name / "config.json").read_text())["architectures"][0]
            self.assertEqual(name in NAMES, not architecture.endswith("ForMaskedLM"), name)

    def test_beams_change_places(self):
        for name in NAMES:
            entries = json.loads((program.GOLDENS / name / "beams.json").read_text())["entries"]
            self.assertTrue(any(entry["beam_moves"] > 0 for entry in entries), name)


if __name__ == "__main__":
    program.main()
