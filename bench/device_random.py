#!/usr/bin/env python3
"""Random batches on the GPU beside the same on the CPU: in fp32 both choose the same tokens.

    MILLRACE=PROGRAM bench/device_random.py [MODEL] [--device cuda] [--batches 150] [--seed 1]

Each batch is one `run --input-file` with 1 to 48 prompts of random ids, random lengths and lengths of answers, so that the sequences
of a step and their rows change from step to step: some thousand shapes. Engines differ in tokens of a step (prompts in chunks)
and requests of a step; sessions in layout, cache, blocks and capture. Needs nothing but the program and Python.

An answer agrees when its ids do, and each token's log-probability within 0.0005. Where the ids part, the CPU's two best tokens must be
within 1e-4 of each other there: a tie that rounding decides. One JSON line at the end, one to standard error for each
disagreement with the command that shows it; exit status 1 if there was one.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = os.environ.get("MILLRACE", str(ROOT / "build/millrace"))
ENGINES = (  # --max-num-tokens, --max-batch-size
    (8192, 48), (1024, 48), (96, 48), (33, 5), (512, 16), (64, 64))
SESSIONS = (  # whole lists of flags
    (), ("--layout", "padded"), ("--kv-cache", "contiguous"), ("--tokens-per-block", "16"), ("--tokens-per-block", "128"),
    ("--no-cuda-graphs",), ("--multi-block", "7"), ("--layout", "padded", "--kv-cache", "contiguous"))
TIE, LOGPROB = 1e-4, 5e-4
MAX_SEQ_LEN = 1024


def random_lines(draw, vocabulary):
    """Prompts: many short ones, some long ones."""
    longest = draw.choice((8, 40, 130, 300, 700))
    answers = draw.choice((1, 8, 24, 40))
    lines = []
    for _ in range(draw.choice((1, 2, 3, draw.randint(4, 16), draw.randint(17, 48)))):
        length = draw.randint(1, draw.choice((8, longest)))
        lines.append({"input_ids": [draw.randrange(3, vocabulary) for _ in range(length)],
                      "max_new_tokens": draw.randint(1, answers), "logprobs": 2})
    return lines


def run(device, arguments, file, cache):
    command = [PROGRAM, "run", *arguments, "--input-file", file, "--device", device, "--cache-dir", cache]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}")
    return [json.loads(line)["outputs"][0]["logprobs"] for line in done.stdout.splitlines()]


def disagreement(wanted, found):
    """Why an answer is wrong, or nothing; and whether it ends in a tie."""
    for i, (expected, token) in enumerate(zip(wanted, found)):
        if expected["id"] != token["id"]:
            best, second = (logprob for _, logprob in expected["top"])
            if best - second < TIE:
                return None, True
            return f"token {i} is {token['id']}, not {expected['id']}, {best - second:.6f} more likely than the next", False
        if abs(expected["logprob"] - token["logprob"]) > LOGPROB:
            return f"log-probability {i} is {token['logprob']}, not {expected['logprob']}", False
    if len(wanted) != len(found):
        return f"{len(found)} tokens, not {len(wanted)}", False
    return None, False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=ROOT / "models/novelist-draft")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    vocabulary = json.loads((pathlib.Path(options.model) / "config.json").read_text())["vocab_size"]
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for batch in range(options.batches):
            lines = random_lines(draw, vocabulary)
            tokens, requests = draw.choice(ENGINES)
            session = draw.choice(SESSIONS)
            file = pathlib.Path(scratch) / f"batch{batch}.jsonl"
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            common = [options.model, "--dtype", "fp32", "--kv-dtype", "fp32", "--greedy", "--ignore-eos", "--json", "--quiet",
                      "--max-seq-len", str(MAX_SEQ_LEN)]
            limits = ["--max-num-tokens", str(tokens), "--max-batch-size", str(requests)]
            # The CPU's side is always the same: whole prompts, packed, paged.
            wanted = run("cpu", common, file, f"{scratch}/cache")
            found = run(options.device, [*common, *limits, *session], file, f"{scratch}/cache")
            counts["batches"] += 1
            for i, (expected, answer) in enumerate(zip(wanted, found)):
                problem, tie = disagreement(expected, answer)
                counts.update(answers=1, tokens=len(expected), ties=tie, disagreements=problem is not None)
                if problem:
                    print(f"DISAGREEMENT in batch {batch} of seed {options.seed}, prompt {i}: {problem}; {len(lines)} prompts, "
                          f"{' '.join([*limits, *session])}", file=sys.stderr, flush=True)
            file.unlink()
    print(json.dumps({"model": pathlib.Path(options.model).name, "seed": options.seed, **counts}), flush=True)
    return 1 if counts["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
