"""Compares the program's outputs for a tiny model with what transformers computed (tests/data/models/)."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import program
import tensor_file


INPUTS = ("input_ids", "decoder_input_ids", "input_features")


def names():
    return sorted(path.parent.name for path in program.GOLDENS.glob("*/config.json"))


class Golden:
    def __init__(self, name, kv_dtype="fp32"):
        self.name, self.folder, self.kv_dtype = name, program.GOLDENS / name, kv_dtype
        file = "golden" if kv_dtype == "fp32" else f"golden_{kv_dtype}"
        self.head = json.loads((self.folder / f"{file}.json").read_text())
        self.prompts = self.head["prompts"]
        self.tensors = tensor_file.read_tensors(self.folder / f"{file}.safetensors")

    def inputs(self):
        """The prompts as lines of an input file."""
        return [{key: prompt[key] for key in INPUTS if key in prompt} for prompt in self.prompts]

    def arguments(self, model=None, seed=None):
        arguments = ["run", model or self.folder, f"--dummy-weights={self.head['seed'] if seed is None else seed}",
                     "--dtype", "fp32", "--kv-dtype", self.kv_dtype, "--greedy", "--max-new-tokens", "32"]
        return arguments + (["--ignore-eos"] if self.head["ignore_eos"] else [])


def row(tensor, index):
    shape, values = tensor
    return values[index * shape[1]:(index + 1) * shape[1]]


def compare_rows(found, wanted, rows, tolerance, what):
    """Findings, and the largest difference relative to the largest wanted value."""
    largest = max(abs(x) for x in wanted[1])
    worst, worst_row = 0.0, 0
    for i, index in enumerate(rows):
        if index >= found[0][0]:
            return [f"{what}: row {index} is missing, there are {found[0][0]}"], float("inf")
        mine = row(found, index)
        # `not <=` so that a NaN counts.
        off = max((abs(a - b) if abs(a - b) <= 1e30 else 1e30) for a, b in zip(mine, row(wanted, i)))
        if not off <= worst:
            worst, worst_row = off, index
    relative = worst / largest
    if not relative <= tolerance:
        return [f"{what}: row {worst_row} differs by {relative:.2e} of the largest logit; the tolerance is {tolerance}"], relative
    return [], relative


def compare(golden, objects, logits_file):
    """(findings, largest relative difference of logits) of one run over all prompts."""
    findings, worst = [], 0.0
    if len(objects) != len(golden.prompts):
        return [f"{len(objects)} results for {len(golden.prompts)} prompts"], worst
    logits = tensor_file.read_tensors(logits_file)
    vocab = golden.tensors["prompt_logits.0"][0][1]
    for i, (prompt, found) in enumerate(zip(golden.prompts, objects)):
        output = found["outputs"][0]
        decoder_prompt = prompt.get("decoder_input_ids", prompt.get("input_ids"))
        if found["input_ids"] != prompt.get("input_ids", []):
            findings.append(f"prompt {i}: input_ids are not what was given")
        if output["output_ids"] != prompt["output_ids"]:
            same = next((k for k, (a, b) in enumerate(zip(output["output_ids"], prompt["output_ids"])) if a != b), "the end")
            findings.append(f"prompt {i} ({len(decoder_prompt)} tokens): new tokens differ from {same} on")
        new = len(prompt["output_ids"])
        reason = "length" if new == 32 else "stop"
        if output["finish_reason"] != reason:
            findings.append(f"prompt {i}: finish_reason is {output['finish_reason']}, not {reason}")
        for key, count, rows in (("prompt_logits", len(decoder_prompt), prompt["prompt_rows"]),
                                 ("logits", len(output["output_ids"]), prompt["new_rows"])):
            name = f"{key}.{i}"
            if key == "logits" and not rows:  # an encoder: nothing is generated
                continue
            if name not in logits or logits[name][0] != [count, vocab]:
                findings.append(f"{name}: shape {logits.get(name, [None])[0]}, not {[count, vocab]}")
                continue
            if key == "logits" and output["output_ids"] != prompt["output_ids"]:
                continue  # rows of another text
            wrong, relative = compare_rows(logits[name], golden.tensors[name], rows, golden.head["tolerance"], name)
            findings += wrong
            worst = max(worst, relative)
        if not findings and prompt["new_rows"] and list(row(logits[f"logits.{i}"], 0)) != list(row(logits[f"prompt_logits.{i}"], -1 + len(decoder_prompt))):
            findings.append(f"logits.{i}: the first row is not the last of the prompt")
    if set(logits) - {f"{key}.{i}" for key in ("prompt_logits", "logits") for i in range(len(objects))}:
        findings.append(f"unexpected tensors in the logits file: {sorted(logits)}")
    return findings, worst
