#!/usr/bin/env python3
"""Random batches on the GPU beside the same on the CPU: in fp32 both choose the same tokens.

    MILLRACE=PROGRAM bench/device_random.py [MODEL] [--device cuda] [--batches 3000] [--jobs 8] [--seed 1]

A run is one `run --input-file` on each device: one engine, one session, 25 batches one after the other. A batch is 1 to 48 prompts of random
ids, with random lengths and lengths of answers, so that the sequences of a step and their rows change from step to step; some
prompts begin like an earlier one. Engines differ in tokens of a step (prompts in chunks) and requests of a step; sessions in layout, cache,
blocks and capture. Several runs go on at a time. Needs nothing but the program and Python.

An answer agrees when its ids do, and each token's log-probability within 0.0005. Where the ids part, the CPU's two best tokens must be
within 1e-4 of each other there: a tie that rounding decides. One JSON line at the end, one to standard error for each
disagreement, which `--only RUN` repeats; exit status 1 if there was one.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = os.environ.get("MILLRACE", str(ROOT / "build/millrace"))
STEP_TOKENS = (8192, 1024, 512, 96, 64, 33)
SESSIONS = (  # whole lists of flags
    (), ("--layout", "padded"), ("--kv-cache", "contiguous"), ("--tokens-per-block", "16"), ("--tokens-per-block", "128"),
    ("--no-cuda-graphs",), ("--multi-block", "7"), ("--layout", "padded", "--kv-cache", "contiguous"))
TIE, LOGPROB = 1e-4, 5e-4
MAX_SEQ_LEN = 1024
BATCHES_OF_RUN = 25
SHARED = 0.1  # of the prompts begin like an earlier one


def random_batch(draw, vocabulary, prompts, earlier):
    """Lines of the input file: many short prompts, some long ones. Adds their ids to `earlier`."""
    longest = draw.choice((8, 40, 130, 300, 700))
    answers = draw.choice((1, 8, 24, 40))
    lines = []
    for _ in range(prompts):
        ids = [draw.randrange(3, vocabulary) for _ in range(draw.randint(1, draw.choice((8, longest))))]
        if earlier and draw.random() < SHARED:
            other = draw.choice(earlier)
            ids = (other[:draw.randint(1, len(other))] + ids)[:MAX_SEQ_LEN // 2]
        earlier.append(ids)
        lines.append({"input_ids": ids, "max_new_tokens": draw.randint(1, answers), "logprobs": 2})
    return lines


def run(device, arguments, file):
    command = [PROGRAM, "run", *arguments, "--input-file", file, "--device", device]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=False)
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


class Comparison:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.vocabulary = json.loads((pathlib.Path(options.model) / "config.json").read_text())["vocab_size"]
        self.threads = max(1, (os.cpu_count() or 1) // options.jobs)

    def __call__(self, number, batches):
        """Counts of one run."""
        draw = random.Random(f"{self.options.seed} {number}")
        requests = draw.choice((1, 2, 3, draw.randint(4, 16), draw.randint(17, 48)))
        limits = ["--max-num-tokens", str(max(requests, draw.choice(STEP_TOKENS))), "--max-batch-size", str(requests)]
        session = draw.choice(SESSIONS)
        earlier = []
        lines = [line for _ in range(batches) for line in random_batch(draw, self.vocabulary, requests, earlier)]
        file = self.scratch / f"run{number}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        common = [self.options.model, "--dtype", "fp32", "--kv-dtype", "fp32", "--greedy", "--ignore-eos", "--json", "--quiet",
                  "--max-seq-len", MAX_SEQ_LEN, "--threads", self.threads, "--cache-dir", self.scratch / "cache"]
        # The CPU's side is always the same: whole prompts, packed, paged.
        wanted = run("cpu", common, file)
        found = run(self.options.device, [*common, *limits, *session], file)
        file.unlink()
        lengths = [len(line["input_ids"]) for line in lines]
        counts = collections.Counter(runs=1, batches=batches, prompt_tokens=sum(lengths))
        if len(wanted) != len(lines) or len(found) != len(lines):
            raise SystemExit(f"run {number}: {len(lines)} prompts, {len(wanted)} and {len(found)} answers")
        for i, (expected, answer) in enumerate(zip(wanted, found)):
            problem, tie = disagreement(expected, answer)
            counts.update(answers=1, tokens=len(expected), ties=tie, disagreements=problem is not None)
            if problem:
                print(f"DISAGREEMENT in run {number} of seed {self.options.seed}, batch {i // requests} of {requests} prompts, prompt "
                      f"{i % requests}: {problem}; {' '.join([*limits, *session])}", file=sys.stderr, flush=True)
        return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=ROOT / "models/novelist-draft")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, default=3000)
    parser.add_argument("--jobs", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)), help="runs at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this run alone")
    options = parser.parse_args()
    sizes = [min(BATCHES_OF_RUN, options.batches - first) for first in range(0, options.batches, BATCHES_OF_RUN)]
    numbers = range(len(sizes)) if options.only is None else [options.only]
    counts, start = collections.Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        compare = Comparison(options, pathlib.Path(scratch))
        for found in pool.map(compare, numbers, (sizes[number] for number in numbers)):
            counts.update(found)
    print(json.dumps({"model": pathlib.Path(options.model).name, "seed": options.seed, **counts,
                      "seconds": round(time.monotonic() - start, 1)}), flush=True)
    return 1 if counts["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
