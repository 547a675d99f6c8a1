#!/usr/bin/env python3
"""Random batches on the GPU beside the same on the CPU.

    MILLRACE=PROGRAM bench/device_random.py [MODEL] [--device cuda] [--dtype fp32] [--batches 3000] [--jobs 8] [--seed 1]
    MILLRACE=PROGRAM bench/device_random.py [MODEL] --dtype bf16 --batches 150 --record

A run is one `run --input-file` on the device: one engine, one session, 25 batches (in 16 bits 10) one after the other. A batch is 1 to 48
prompts (in 16 bits to 128) of random ids, with random lengths and lengths of answers, so that the sequences of a step and their rows change
from step to step; some prompts begin like an earlier one. Engines differ in tokens of a step (prompts in chunks) and requests of a step;
sessions in layout, cache, blocks and capture, in 16 bits in the type of the cache, too. Several runs go on at a time. Needs nothing but the
program and Python.

In fp32 the CPU answers the same prompts. An answer agrees when its ids do, and each token's log-probability within 0.0005. Where the ids
part, the CPU's two best tokens must be within 1e-4 of each other there: a tie that rounding decides.

In bf16 and fp16 answers part sooner or later. The CPU scores what the device chose: each prompt with its answer goes through the model in
fp32. A difference is that of a token's log-probability from fp32; in a third of the runs of the prompts' tokens, too. How large differences
may be follows from two that the GPU has no part in: T, those of transformers in this type, recorded below (`--record` finds them anew, with
PyTorch and transformers), and C, those of the CPU in this type and with this type of cache, which rounds little but what it stores there.

* The mean of a run is at most 1.5 T + C, the largest of a run at most 2 (T + C). Where the cache rounds most, as in fp8, the device's and the
  CPU's are draws of one distribution: the largest of one is not a bound for that of the other.
* What was chosen may be less likely in fp32 than fp32's best token by two largest differences: one of each of them.

One JSON line at the end (in 16 bits one for each type of cache), one to standard error for each disagreement, which `--only RUN` repeats;
exit status 1 if there was one.
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
CACHES = (("--kv-dtype", "int8"), ("--kv-dtype", "fp8"))  # more sessions in 16 bits
TIE, LOGPROB = 1e-4, 5e-4
MEAN_RATIO, LARGEST_RATIO = 1.5, 2
RECORDED = {  # of transformers 5.23 (in 50 batches of novelist-14m, 100 of novelist-draft): mean and largest difference
    ("novelist-14m", "bf16"): {"answer": (0.00733, 0.0621), "prompt": (0.0187, 0.163)},
    ("novelist-14m", "fp16"): {"answer": (0.000917, 0.00646), "prompt": (0.00233, 0.0186)},
    ("novelist-draft", "bf16"): {"answer": (0.011, 0.0952), "prompt": (0.0277, 0.252)},
    ("novelist-draft", "fp16"): {"answer": (0.00141, 0.0115), "prompt": (0.00343, 0.0304)},
}
FEWEST = 200  # tokens whose mean is compared
MAX_SEQ_LEN = 1024
SHARED = 0.1  # of the prompts begin like an earlier one


def random_batch(draw, vocabulary, prompts, earlier):
    """Lines of the input file, without what is asked of them: many short prompts, some long ones. Adds their ids to `earlier`."""
    longest = draw.choice((8, 40, 130, 300, 700))
    answers = draw.choice((1, 8, 24, 40))
    lines = []
    for _ in range(prompts):
        ids = [draw.randrange(3, vocabulary) for _ in range(draw.randint(1, draw.choice((8, longest))))]
        if earlier and draw.random() < SHARED:
            other = draw.choice(earlier)
            ids = (other[:draw.randint(1, len(other))] + ids)[:MAX_SEQ_LEN // 2]
        earlier.append(ids)
        lines.append({"input_ids": ids, "max_new_tokens": draw.randint(1, answers)})
    return lines


def run(device, arguments, file):
    command = [PROGRAM, "run", *arguments, "--input-file", file, "--device", device]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


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
    """Of one run at a time."""

    BATCHES = 25  # of a run

    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.vocabulary = json.loads((pathlib.Path(options.model) / "config.json").read_text())["vocab_size"]
        self.threads = max(1, (os.cpu_count() or 1) // options.jobs)

    def flags(self, dtype):
        return [self.options.model, "--dtype", dtype, "--greedy", "--ignore-eos", "--json", "--quiet", "--max-seq-len", MAX_SEQ_LEN,
                "--threads", self.threads, "--cache-dir", self.scratch / "cache"]

    def draw_run(self, number, batches, requests, sessions):
        """The input lines of a run, and the flags of its engine and session on the device."""
        draw = random.Random(f"{self.options.seed} {number}")
        requests = draw.choice([count if isinstance(count, int) else draw.randint(*count) for count in requests])
        limits = ["--max-num-tokens", str(max(requests, draw.choice(STEP_TOKENS))), "--max-batch-size", str(requests)]
        session = draw.choice(sessions)
        earlier = []
        lines = [line for _ in range(batches) for line in random_batch(draw, self.vocabulary, requests, earlier)]
        return lines, requests, [*limits, *session]

    def answers(self, number, device, flags, lines, **asked):
        """Of the lines, each with what is asked of it."""
        file = self.scratch / f"run{number}.jsonl"
        file.write_text("".join(json.dumps({**line, **asked}) + "\n" for line in lines))
        found = run(device, flags, file)
        file.unlink()
        if len(found) != len(lines):
            raise SystemExit(f"run {number}: {len(lines)} prompts, {len(found)} answers on {device}")
        return found

    def report(self, number, place, requests, problem, flags):
        batch = "" if place is None else f", batch {place // requests} of {requests} prompts, prompt {place % requests}"
        print(f"DISAGREEMENT in run {number} of seed {self.options.seed}{batch}: {problem}; {' '.join(flags)}", file=sys.stderr, flush=True)


class SameTokens(Comparison):
    """In fp32."""

    def __call__(self, number, batches):
        """Counts of one run."""
        lines, requests, flags = self.draw_run(number, batches, (1, 2, 3, (4, 16), (17, 48)), SESSIONS)
        common = [*self.flags("fp32"), "--kv-dtype", "fp32"]
        # The CPU's side is always the same: whole prompts, packed, paged.
        wanted = self.answers(number, "cpu", common, lines, logprobs=2)
        found = self.answers(number, self.options.device, [*common, *flags], lines, logprobs=2)
        counts = collections.Counter(runs=1, batches=batches, prompt_tokens=sum(len(line["input_ids"]) for line in lines))
        for i, (expected, answer) in enumerate(zip(wanted, found)):
            expected, answer = (line["outputs"][0]["logprobs"] for line in (expected, answer))
            problem, tie = disagreement(expected, answer)
            counts.update(answers=1, tokens=len(expected), ties=tie, disagreements=problem is not None)
            if problem:
                self.report(number, i, requests, problem, flags)
        return counts

    def summary(self, runs):
        counts = collections.Counter()
        for made in runs:
            counts.update(made)
        yield dict(counts)


class Differences:
    """Of log-probabilities from those in fp32: how many, their sum, the largest and which line it is in."""

    def __init__(self):
        self.count, self.total, self.largest, self.place = 0, 0.0, 0.0, None

    def add(self, difference, place):
        self.count += 1
        self.total += difference
        if not difference <= self.largest:  # or not a number
            self.largest, self.place = difference, place

    def join(self, other):
        self.count, self.total, self.largest = self.count + other.count, self.total + other.total, max(self.largest, other.largest)

    def mean(self):
        return self.total / max(self.count, 1)

    def json(self):
        return {"tokens": self.count, "mean": float(f"{self.mean():.3g}"), "largest": float(f"{self.largest:.3g}")}


class NearTokens(Comparison):
    """In 16 bits."""

    BATCHES = 10  # in more runs: large batches are one in five
    KINDS = ("answer", "prompt")

    def __call__(self, number, batches):
        """What one run found: counts, and differences of the device and of the CPU by kind of token."""
        lines, requests, flags = self.draw_run(number, batches, (1, (2, 4), (5, 16), (17, 64), (65, 128)), SESSIONS + CACHES)
        cache = flags[flags.index("--kv-dtype") + 1] if "--kv-dtype" in flags else "auto"
        asked = {"prompt_logprobs": 0} if number % 3 == 0 else {}
        found = self.answers(number, self.options.device, [*self.flags(self.options.dtype), *flags], lines, logprobs=0, **asked)
        ids = [line["input_ids"] + answer["outputs"][0]["output_ids"] for line, answer in zip(lines, found)]
        whole = [{"input_ids": i, "max_new_tokens": 0} for i in ids]
        exact = self.answers(number, "cpu", [*self.flags("fp32"), "--kv-dtype", "fp32"], whole, prompt_logprobs=1)
        peer = self.answers(number, "cpu", [*self.flags(self.options.dtype), "--kv-dtype", cache], whole, prompt_logprobs=0)
        counts = collections.Counter(runs=1, batches=batches, answers=len(lines),
                                     prompt_tokens=sum(len(line["input_ids"]) for line in lines))
        made = {"number": number, "requests": requests, "flags": flags, "cache": cache, "counts": counts, "gap": Differences(),
                **{kind: (Differences(), Differences()) for kind in self.KINDS}}
        for i, line in enumerate(lines):
            scores = [row["prompt_logprobs"] for row in (exact[i], peer[i])]
            answer, length = found[i]["outputs"][0]["logprobs"], len(line["input_ids"])
            self.compare(made["answer"], answer, *(score[-len(answer):] for score in scores), i)
            for token in scores[0][-len(answer):]:
                made["gap"].add(token["top"][0][1] - token["logprob"], i)
            if asked:
                self.compare(made["prompt"], found[i]["prompt_logprobs"], *(score[:length - 1] for score in scores), i)
        return made

    @staticmethod
    def compare(differences, found, exact, peer, place):
        if not [t["id"] for t in found] == [t["id"] for t in exact] == [t["id"] for t in peer]:
            raise SystemExit(f"line {place}: log-probabilities of {len(found)}, {len(exact)} and {len(peer)} tokens, not of the same ones")
        for token, right, other in zip(found, exact, peer):
            differences[0].add(abs(token["logprob"] - right["logprob"]), place)
            differences[1].add(abs(other["logprob"] - right["logprob"]), place)

    def problems(self, made, cpu):
        """Of one run, each with the line that shows it; `cpu` are the CPU's differences by kind, of all runs with such a cache."""
        recorded = RECORDED[pathlib.Path(self.options.model).name, self.options.dtype]
        for kind in self.KINDS:
            found, (mean, largest) = made[kind][0], recorded[kind]
            mean, largest = MEAN_RATIO * mean + cpu[kind].mean(), LARGEST_RATIO * (largest + cpu[kind].largest)
            if found.count >= FEWEST and not found.mean() <= mean:
                yield None, f"the mean difference of its {kind}s is {found.mean():.3g}, at most {mean:.3g} is right"
            if not found.largest <= largest:
                yield found.place, f"a difference of {found.largest:.3g} in the {kind}, at most {largest:.3g} is right"
            if kind == "answer" and not made["gap"].largest <= 2 * largest:
                yield made["gap"].place, (f"fp32's best token is {made['gap'].largest:.3g} more likely than the one chosen, at most "
                                          f"{2 * largest:.3g} is right")

    def summary(self, runs):
        for cache in sorted({made["cache"] for made in runs}):
            these = [made for made in runs if made["cache"] == cache]
            counts, gap, device, cpu = collections.Counter(disagreements=0), Differences(), {}, {}
            for kind in self.KINDS:
                for side, pooled in enumerate((device, cpu)):
                    pooled[kind] = Differences()
                    for made in these:
                        pooled[kind].join(made[kind][side])
            for made in these:
                counts.update(made["counts"])
                gap.join(made["gap"])
                for place, problem in self.problems(made, cpu):
                    counts["disagreements"] += 1
                    self.report(made["number"], place, made["requests"], problem, made["flags"])
            yield {"kv_dtype": cache, **counts, "largest_gap": gap.json()["largest"],
                   **{kind: {"device": device[kind].json(), "cpu": cpu[kind].json()} for kind in self.KINDS}}


def transformers_scores(model, dtype, sequences):
    """Log-probabilities of all tokens but the first of each sequence, by transformers in this type; the head's sums stay in fp32, as ours."""
    import torch
    import transformers

    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    made = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=kinds[dtype]).eval()
    head = made.lm_head.weight.float()
    with torch.no_grad():
        for ids in sequences:
            logits = made.model(input_ids=torch.tensor([ids])).last_hidden_state[0, :-1].float() @ head.T
            yield logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


class Record(Comparison):
    """What RECORDED has: differences of transformers, in answers of the CPU in fp32."""

    def __call__(self, number, batches):
        lines, _, _ = self.draw_run(number, batches, (1, (2, 4), (5, 16)), SESSIONS)
        flags = [*self.flags("fp32"), "--kv-dtype", "fp32"]
        found = self.answers(number, "cpu", flags, lines, logprobs=0)
        ids = [line["input_ids"] + answer["outputs"][0]["output_ids"] for line, answer in zip(lines, found)]
        exact = self.answers(number, "cpu", flags, [{"input_ids": i, "max_new_tokens": 0} for i in ids], prompt_logprobs=0)
        made = {"answer": Differences(), "prompt": Differences()}
        for i, scores in enumerate(transformers_scores(self.options.model, self.options.dtype, ids)):
            for place, (score, right) in enumerate(zip(scores, exact[i]["prompt_logprobs"])):
                kind = "prompt" if place < len(lines[i]["input_ids"]) - 1 else "answer"
                made[kind].add(abs(score - right["logprob"]), i)
        return made

    def summary(self, runs):
        for made in runs[1:]:
            for kind, differences in made.items():
                runs[0][kind].join(differences)
        yield {"disagreements": 0, **{kind: differences.json() for kind, differences in runs[0].items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=ROOT / "models/novelist-draft")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--batches", type=int, default=3000)
    parser.add_argument("--jobs", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)), help="runs at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this run alone")
    parser.add_argument("--record", action="store_true", help="what is RECORDED of transformers, for this model and type")
    options = parser.parse_args()
    if options.dtype != "fp32" and not options.record and (pathlib.Path(options.model).name, options.dtype) not in RECORDED:
        parser.error(f"nothing is recorded of {options.model} in {options.dtype}; add what --record finds to RECORDED")
    if options.dtype == "fp32" and options.record:
        parser.error("--record is for 16 bits: add --dtype bf16 or fp16")
    kind = SameTokens if options.dtype == "fp32" else Record if options.record else NearTokens
    sizes = [min(kind.BATCHES, options.batches - first) for first in range(0, options.batches, kind.BATCHES)]
    numbers = range(len(sizes)) if options.only is None else [options.only]
    start, disagreements = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        compare = kind(options, pathlib.Path(scratch))
        for line in compare.summary(list(pool.map(compare, numbers, (sizes[number] for number in numbers)))):
            disagreements += line["disagreements"]
            print(json.dumps({"model": pathlib.Path(options.model).name, "dtype": options.dtype, "seed": options.seed, **line,
                              "seconds": round(time.monotonic() - start, 1)}), flush=True)
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
