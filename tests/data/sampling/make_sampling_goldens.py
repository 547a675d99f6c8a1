#!/usr/bin/env python3
"""Records what transformers' logits processors and warpers make of given logits, in the order in which generate()
applies them. Writes processors.json and warpers.json beside itself. Needs torch and transformers.

Logits are not stored: both sides compute them from a seed (make_logits here, golden_logits in
src/ops/common/sampling_golden.h). A case whose result would change with a limit 1e-5 away, or with float64 arithmetic,
is drawn again: such a result says nothing about semantics. torch.sort is made stable, so that of equal logits top_p drops
the lowest token first; as transformers calls it, the choice among equals is arbitrary.
"""
import functools
import json
import pathlib
import random

import numpy as np
import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
MASK = (1 << 64) - 1


def splitmix(values):
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def make_logits(seed, vocab, spread, grid):
    """Sums of four 14-bit integers, scaled by a power of two: exact in float32. `grid` > 0 rounds down to multiples of
    2^-grid, which makes equals."""
    start = np.uint64((seed * 0x1000000) & MASK)
    bits = splitmix(start + np.arange(vocab, dtype=np.uint64))
    parts = sum(((bits >> np.uint64(16 * i)) & np.uint64(0x3FFF)).astype(np.int64) for i in range(4))
    values = (parts - (1 << 15)) / (1 << 15) * spread
    if grid > 0:
        values = np.floor(values * (1 << grid)) / (1 << grid)
    return values.astype(np.float32)


class Model:
    """A model only to ask generate()'s own code for its list of processors."""

    def __init__(self):
        config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                             num_attention_heads=1)
        self.model = LlamaForCausalLM(config)

    def processors(self, options, prompt_length, max_new_tokens):
        config = GenerationConfig(**options)
        config.max_length = prompt_length + max_new_tokens
        self.model._prepare_special_tokens(config, True, device="cpu")
        return self.model._get_logits_processor(config, input_ids_seq_length=prompt_length, device="cpu")


MODEL = Model()


def apply(options, ids, prompt_length, max_new_tokens, scores):
    processors = MODEL.processors(options, prompt_length, max_new_tokens)
    return processors(torch.tensor([ids]), scores)[0]


def changes(before, after):
    """{token: value} of what changed, or all that is not -inf when most is."""
    masked = torch.isneginf(after)
    value = lambda v: None if v == float("-inf") else v
    if masked.sum() > len(after) // 2:
        return {"only": {str(i): float(after[i]) for i in range(len(after)) if not masked[i]}}
    return {"changed": {str(i): value(float(after[i])) for i in range(len(after)) if after[i] != before[i]}}


def some_tokens(rng, vocab, count):
    return [rng.randrange(vocab) for _ in range(count)]


# One function per option: the values of transformers' GenerationConfig.
PROCESSORS = {
    "sequence_bias": lambda rng, v, ids: [[[t], rng.choice([-100.0, -1.5, 0.25, 7.0])] for t in set(some_tokens(rng, v, 5))],
    "repetition_penalty": lambda rng, v, ids: rng.choice([0.5, 1.1, 1.3, 2.0]),
    "no_repeat_ngram_size": lambda rng, v, ids: rng.choice([1, 2, 3, 4]),
    "bad_words_ids": lambda rng, v, ids: [some_tokens(rng, v, 1), ids[-1:] + some_tokens(rng, v, 1),
                                          ids[-2:] + some_tokens(rng, v, 1), some_tokens(rng, v, 3), [2]],
    "min_new_tokens": lambda rng, v, ids: rng.choice([1, 3, 9]),
    "forced_bos_token_id": lambda rng, v, ids: rng.randrange(v),
    "forced_eos_token_id": lambda rng, v, ids: rng.choice([[4], [4, 9]]),
    "suppress_tokens": lambda rng, v, ids: some_tokens(rng, v, 6),
    "begin_suppress_tokens": lambda rng, v, ids: some_tokens(rng, v, 3),
}


def processor_case(rng, names, seed):
    vocab = rng.choice([31, 64, 97])
    alphabet = rng.choice([3, 8, vocab])  # few letters: n-grams repeat
    prompt_length = rng.choice([1, 1, 2, 5, 12])
    new_length = rng.choice([0, 0, 1, 2, 8, 20])
    max_new_tokens = rng.choice([1, 4, 9]) + new_length
    if "forced_eos_token_id" in names:
        max_new_tokens = new_length + rng.choice([1, 1, 2])
    ids = [rng.randrange(alphabet) for _ in range(prompt_length + new_length)]
    if rng.random() < 0.1:
        ids[0] = vocab + 3  # an id that the head does not have
    options = {name: PROCESSORS[name](rng, vocab, ids) for name in names}
    if "bad_words_ids" in options:  # each once: transformers keeps them in a dictionary
        options["bad_words_ids"] = [w for w in options["bad_words_ids"] if max(w) < vocab]
    options["eos_token_id"] = rng.choice([[2], [2, 5]])
    grid = rng.choice([0, 2])
    logits = torch.tensor(make_logits(seed, vocab, 8.0, grid))
    result = apply(options, ids, prompt_length, max_new_tokens, logits[None])
    return {"seed": seed, "vocab": vocab, "spread": 8.0, "grid": grid, "ids": ids, "prompt_length": prompt_length,
            "max_new_tokens": max_new_tokens, "options": options, **changes(logits, result)}


def record_processors():
    rng = random.Random(3)
    names = list(PROCESSORS)
    chosen = [[name] for name in names for _ in range(16)]
    chosen += [rng.sample(names, rng.randrange(2, len(names) + 1)) for _ in range(120)]
    cases = []
    for seed, picked in enumerate(chosen, 1):
        case = None
        while case is None:
            try:
                case = processor_case(rng, sorted(picked), seed)
            except ValueError as error:  # transformers refuses to force a token that is suppressed
                if "forced_" not in str(error):
                    raise
        cases.append(case)
    return cases


def kept_tokens(options, scores):
    after = apply({"do_sample": True, "top_k": 0, **options}, [1], 1, 9, scores)
    return tuple(torch.nonzero(~torch.isneginf(after)).flatten().tolist())


def neighbours(options):
    """The same options with each limit a little lower and higher."""
    for name in ("top_p", "min_p", "typical_p"):
        for factor in (1 - 1e-5, 1 + 1e-5):
            if name in options and 0 < options[name] * factor < 1:
                yield {**options, name: options[name] * factor}


WARPERS = {
    "temperature": lambda rng: rng.choice([0.3, 0.7, 1.0, 1.3, 2.5]),
    "top_k": lambda rng: rng.choice([1, 2, 5, 40, 64, 5000]),
    "top_p": lambda rng: rng.choice([0.01, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99]),
    "min_p": lambda rng: rng.choice([0.001, 0.02, 0.1, 0.5, 1.0]),
    "typical_p": lambda rng: rng.choice([0.1, 0.5, 0.9, 0.95]),
}


def warper_case(rng, names, vocab, spread, seed):
    while True:
        seed += 1000003
        grid = rng.choice([0, 0, 3])
        options = {name: WARPERS[name](rng) for name in names}
        scores = torch.tensor(make_logits(seed, vocab, spread, grid))[None]
        kept = kept_tokens(options, scores)
        if len(kept) > 400:
            continue
        if kept != kept_tokens(options, scores.double()):
            continue
        if all(kept == kept_tokens(near, scores) for near in neighbours(options)):
            return {"seed": seed, "vocab": vocab, "spread": spread, "grid": grid, "options": options, "kept": kept}


def record_warpers():
    rng = random.Random(4)
    names = list(WARPERS)
    chosen = [[name] for name in names if name != "temperature" for _ in range(24)]
    chosen += [sorted(rng.sample(names, rng.randrange(2, 6)), key=names.index) for _ in range(150)]
    cases = []
    for seed, picked in enumerate(chosen, 1):
        vocab = rng.choice([5, 50, 131, 333])
        cases.append(warper_case(rng, picked, vocab, rng.choice([2.0, 8.0, 32.0]), seed))
    for seed, picked in enumerate([["top_k"], ["top_p"], ["min_p"], ["typical_p"], names, names, ["temperature", "top_p"],
                                   ["temperature", "top_k", "top_p"]], 1):
        cases.append(warper_case(rng, picked, 32000, 64.0, 7777 + seed))
    return cases


def write(name, cases):
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    versions = f'"transformers":"{transformers.__version__}","torch":"{torch.__version__}"'
    path = HERE / name
    path.write_text(f'{{{versions},"cases":[\n{lines}\n]}}\n')
    print(f"{name}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.sort = functools.partial(torch.sort, stable=True)
    write("processors.json", record_processors())
    write("warpers.json", record_warpers())
