#!/usr/bin/env python3
"""Records what transformers computes, for the tests of whole models.

    ./dev golden               every model
    ./dev golden llama_yarn    some of them: names in tools/golden_models/, novelist_14m, novelist_draft, perplexity,
                               prompt_tables
    ./dev golden --beams       beams.json alone (tools/golden_beams.py), of every tiny model or of those named
    ./dev golden --quantised   golden_int8 and golden_fp8 alone (tools/golden_quantised.py), of those models that have them

For each tiny config: weights by docs/dummy_weights.md, fp32, CPU, eager attention; for prompts of 1 to 60 tokens some
rows of the prompt's logits, 32 greedy tokens, some rows of their logits, and how far the best logit is ahead of the
second at each step. Prompts are drawn until the smallest lead is so large that equality of tokens is a fair test.
Where the RoPE rule depends on length, frequencies stay as the prompt made them. tests/data/models/README.md describes
the files.
"""
import argparse
import copy
import json
import lzma
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

import golden_beams
import golden_prompt_tables
import golden_quantised
from dummy_weights import dummy_tensor, write_checkpoint
from golden_faults import FAINT, FAULTS, measure_tensors, plant
from golden_models import ATTENTION, CONFIGS, FAINT_TENSORS, REFERENCES

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests/data/models"
TOLERANCE = 1e-4  # of the largest reference logit
LEAD_MIN = 1e-3  # of the largest logit
SEED = 20
LENGTHS = [1, 2, 5, 17, 33, 60]
FULL_ROWS_MAX = 17  # longer prompts keep some rows
NEW_TOKENS = 32
NEW_ROWS = [1, 8, 31]
DISTINCT_MIN = 5  # different tokens among the new ones
NOVELISTS = {"novelist_14m": "novelist-14m", "novelist_draft": "novelist-draft"}
TEXT_PROMPTS = [
    "It was a dark night, and", "The old house stood", "\"Come in,\" said the captain;", "She opened the letter and",
    "In the year of", "The sea was calm when", "My dear sir,", "Upon the whole,", "There was once a man who",
    "He had never been", "The rain fell upon the roof", "After dinner the ladies", "\"What is the matter?\" cried",
    "London", "At the end of the garden", "The doctor looked at him", "No one spoke for a moment.", "When the train stopped,",
    "I remember that", "The two brothers", "A letter came from", "They walked along the river", "Mr. Brown was",
    "On the following morning", "The child began to cry", "It is a truth", "Behind the door", "The soldiers marched",
    "He took his hat", "Spring had come", "\"Never!\" said she.", "A ship was seen", "The judge asked him whether"]
TEXT_TOKENS = 64
GREEDY_KNOBS = [
    {"repetition_penalty": 1.3}, {"repetition_penalty": 1.05}, {"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 4},
    {"bad_words_ids": [[268], [17, 285]]}, {"suppress_tokens": [17, 19]}, {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3}]
PERPLEXITY_WINDOW, PERPLEXITY_PREDICTIONS = 1024, [16384, 131072]


def check(condition, text):
    if not condition:
        raise SystemExit(f"golden: {text}")


# ---- running transformers ------------------------------------------------------------------------------------------


def build_model(folder, dtype=torch.float32):
    """The reference model with generated weights (in `dtype` if it is one of transformers), by the names and shapes that
    checkpoints have: transformers writes and reads a checkpoint, so tied weights and those that it stacks (experts) go
    through its own conversion."""
    if folder.name in REFERENCES:
        model = REFERENCES[folder.name](json.loads((folder / "config.json").read_text())).eval()
        for name, value in model.state_dict().items():
            value.copy_(torch.from_numpy(dummy_tensor(SEED, name, tuple(value.shape))))
        return model
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    with tempfile.TemporaryDirectory() as checkpoint:
        write_checkpoint(model_class._from_config(config, dtype=torch.float32), checkpoint, SEED)
        return model_class.from_pretrained(checkpoint, attn_implementation=ATTENTION[folder.name],
                                           experts_implementation="eager", dtype=dtype).eval()


class Frequencies:
    """The rotary embedding as new for every prompt, then held as the prompt left it."""

    def __init__(self, model):
        self.model = model.model if hasattr(getattr(model, "model", None), "rotary_emb") else None
        self.pristine = copy.deepcopy(self.model.rotary_emb) if self.model else None
        self.rule = getattr(self.pristine, "rope_type", "default")
        if isinstance(self.rule, dict):  # they differ by layer
            self.rule = self.rule["full_attention"]

    def renew(self):
        if self.model:
            self.model.rotary_emb = copy.deepcopy(self.pristine)

    def hold(self):
        if self.model:
            kinds = self.model.rotary_emb.rope_type
            self.model.rotary_emb.rope_type = dict.fromkeys(kinds, "default") if isinstance(kinds, dict) else "default"


class ReferenceFrequencies:
    """The same of a model of tools/golden_models/reference.py."""

    def __init__(self, model):
        self.model = model
        self.rule = getattr(model, "rope_rule", "default")

    def renew(self):
        self.model.held_length = None

    def hold(self):
        self.model.hold_length()


def frequencies_of(model):
    return ReferenceFrequencies(model) if hasattr(model, "hold_length") else Frequencies(model)


@torch.no_grad()
def forward(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]  # [T, V]


@torch.no_grad()
def greedy(model, frequencies, ids, new_tokens, end_tokens):
    """(logits of the prompt [T, V], new ids, their logits [new, V])."""
    frequencies.renew()
    prompt_logits = forward(model, ids)
    frequencies.hold()
    new, row = [], prompt_logits[-1]
    while len(new) < new_tokens:
        new.append(int(row.argmax()))
        if new[-1] in end_tokens or len(new) == new_tokens:
            break
        row = forward(model, ids + new)[-1]
    logits = forward(model, ids + new[:-1])[len(ids) - 1:]
    check([int(t) for t in logits.argmax(-1)] == new, "one forward over all tokens disagrees with the steps")
    return prompt_logits, new, logits


def largest(*logits):
    return float(max(x.abs().max() for x in logits))


def leads(logits):
    best = logits.topk(2, -1).values
    return (best[:, 0] - best[:, 1]).tolist()


def generate(model, frequencies, ids, new_tokens, end_tokens):
    frequencies.renew()
    out = model.generate(torch.tensor([ids]), do_sample=False, num_beams=1, max_new_tokens=new_tokens,
                         eos_token_id=end_tokens or None, pad_token_id=0)
    return out[0, len(ids):].tolist()


# ---- tiny models ----------------------------------------------------------------------------------------------------


def draw_prompt(model, frequencies, length, end_tokens, name):
    """The first of a row of random prompts whose greedy tokens are told apart well."""
    vocab = model.config.vocab_size
    for attempt in range(300):
        rng = np.random.default_rng([SEED, length, attempt, *name.encode()])
        ids = [int(t) for t in rng.integers(3, vocab, length)]
        prompt_logits, new, logits = greedy(model, frequencies, ids, NEW_TOKENS, end_tokens)
        lead = leads(logits)
        if min(lead) > 1.001 * LEAD_MIN * largest(prompt_logits, logits) and len(set(new)) >= min(DISTINCT_MIN, len(new)):
            return ids, prompt_logits, new, logits, lead
    raise SystemExit(f"golden: {name}: no prompt of {length} tokens with a clear winner at every step")


@torch.no_grad()
def attention_peak(model, ids):
    """Mean over layers and heads of the strongest weight of the last token; None where the model does not tell."""
    maps = model(input_ids=torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
    if not maps or maps[0] is None:
        return None
    return float(torch.stack([m[0, :, -1].max(-1).values.mean() for m in maps]).mean())


def relative_difference(a, b):
    return float((a - b).abs().max() / b.abs().max())


def measure_faults(model, frequencies, prompts, name):
    found = {}
    for fault in FAULTS:
        frequencies.renew()
        planted = plant(fault, model)
        if planted is None:
            continue
        faulty, patches = planted
        with patches:
            faulty_frequencies = Frequencies(faulty)
            worst = 0.0
            for ids, reference in prompts:
                faulty_frequencies.renew()
                worst = max(worst, relative_difference(forward(faulty, ids), reference))
        found[fault] = round(worst, 6)
    return found


def choose_end_token(model, frequencies, name):
    """A token that several greedy outputs reach neither at once nor at the end."""
    counts = {}
    for length in LENGTHS:
        new = draw_prompt(model, frequencies, length, [], name)[2]
        for token in set(new):
            if 2 <= new.index(token) < NEW_TOKENS - 2:
                counts[token] = counts.get(token, 0) + 1
    return max(counts, key=lambda token: (counts[token], -token))


def write_json(path, head, items_name, items):
    """One line a prompt, so that a change can be read."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    rows = ",\n".join(f"    {json.dumps(item)}" for item in items)
    path.write_text("{\n" + "\n".join(lines) + f"\n  {json.dumps(items_name)}: [\n{rows}\n  ]\n}}\n")


def versions():
    return {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}


def record_beams(name):
    import golden_encdec  # which imports this file
    model = golden_encdec.build(DATA / name, CONFIGS[name]) if golden_encdec.handles(name) else build_model(DATA / name)
    golden_beams.record(model, frequencies_of(model), name, DATA / name, versions())


def record_quantised(name):
    golden = json.loads((DATA / name / "golden.json").read_text())
    golden_quantised.record(build_model(DATA / name), DATA / name, golden, write_json, versions())


def record_tiny(name):
    folder = DATA / name
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(CONFIGS[name])
    choose_end = isinstance(config["eos_token_id"], str)
    if choose_end:
        config["eos_token_id"] = 2

    def write_config():
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    write_config()
    model = build_model(folder)
    frequencies = frequencies_of(model)
    end_tokens = []
    if choose_end:
        end_tokens = [choose_end_token(model, frequencies, name)]
        config["eos_token_id"] = end_tokens[0]
        write_config()
    rule = frequencies.rule
    prompts, tensors, references = [], {}, []
    for index, length in enumerate(LENGTHS):
        ids, prompt_logits, new, logits, lead = draw_prompt(model, frequencies, length, end_tokens, name)
        if rule not in ("dynamic", "longrope", "ntk_steps"):
            check(generate(model, frequencies, ids, NEW_TOKENS, end_tokens) == new, f"{name}: generate() gives other tokens")
        rows = list(range(length)) if length <= FULL_ROWS_MAX else [0, length // 3, 2 * length // 3, length - 1]
        new_rows = [row for row in NEW_ROWS if row < len(new)]
        tensors[f"prompt_logits.{index}"] = prompt_logits[rows].numpy()
        tensors[f"logits.{index}"] = logits[new_rows].numpy()
        prompts.append({"input_ids": ids, "output_ids": new, "prompt_rows": rows, "new_rows": new_rows,
                        "largest_logit": round(largest(prompt_logits, logits), 5), "leads": [round(x, 4) for x in lead]})
        references.append((ids, prompt_logits))
    frequencies.renew()
    spread = float(torch.cat([r for _, r in references]).std())
    peak = attention_peak(model, prompts[-1]["input_ids"])
    check(spread >= 1, f"{name}: the logits' deviation is {spread:.2f}, less than 1")
    check(peak is None or peak >= 0.3, f"{name}: the strongest attention weight is {peak:.2f} on average, less than 0.3")
    planted = model.config.model_type in ("llama", "mistral", "qwen2", "qwen3", "gpt2")
    faults = measure_faults(model, frequencies, references, name) if planted else {}
    faults |= measure_tensors(model, forward, references, FAINT_TENSORS.get(name, []))
    unseen = {fault: moved for fault, moved in faults.items() if moved <= 10 * TOLERANCE and fault not in FAINT}
    check(not unseen, f"{name}: these faults hardly move the logits: {unseen}")
    head = {"made_by": "tools/golden.py", **versions(), "seed": SEED, "tolerance": TOLERANCE, "ignore_eos": not choose_end,
            "rope_type": rule, "logit_deviation": round(spread, 3), "attention_peak": peak and round(peak, 3), "faults": faults}
    write_json(folder / "golden.json", head, "prompts", prompts)
    save_file(tensors, folder / "golden.safetensors")
    smallest = min(faults, key=faults.get)
    print(f"{name:24} deviation {spread:.2f}  peak {peak or 0:.2f}  {len(faults)} faults, least {smallest} {faults[smallest]:.4f}",
          flush=True)


# ---- the bundled models ---------------------------------------------------------------------------------------------


def record_knobs(model, tokenizer):
    """Greedy outputs with one rule at a time, by the names of generation_config.json."""
    found = []
    for knobs in GREEDY_KNOBS:
        for text in TEXT_PROMPTS:
            ids = tokenizer(text)["input_ids"]
            out = model.generate(torch.tensor([ids]), do_sample=False, num_beams=1, max_new_tokens=TEXT_TOKENS, eos_token_id=2,
                                 pad_token_id=0, output_scores=True, return_dict_in_generate=True, **knobs)
            lead = leads(torch.cat(out.scores))
            if min(lead) > LEAD_MIN * 20:
                found.append({"knobs": knobs, "prompt": text, "input_ids": ids, "output_ids": out.sequences[0, len(ids):].tolist()})
                break
        else:
            raise SystemExit(f"golden: no prompt with a clear winner at every step under {knobs}")
    return found


def record_novelist(name):
    """Greedy continuations of texts with the trained models: bf16 weights, fp32 arithmetic."""
    source = ROOT / "models" / NOVELISTS[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    frequencies, prompts, tensors = Frequencies(model), [], {}
    for text in TEXT_PROMPTS:
        ids = tokenizer(text)["input_ids"]
        prompt_logits, new, logits = greedy(model, frequencies, ids, TEXT_TOKENS, [2])
        lead = leads(logits)
        if min(lead) < LEAD_MIN * largest(logits):
            continue
        check(generate(model, frequencies, ids, TEXT_TOKENS, [2]) == new, f"{name}: generate() gives other tokens")
        index = len(prompts)
        logprobs, prompt_logprobs = torch.log_softmax(logits, -1), torch.log_softmax(prompt_logits, -1)
        tensors[f"last_prompt_logits.{index}"] = prompt_logits[-1].numpy()
        top = logprobs.topk(5, -1)
        prompts.append({
            "prompt": text, "input_ids": ids, "output_ids": new,
            "text": tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            "least_lead": round(min(lead), 4), "largest_logit": round(largest(logits), 4),
            "logprobs": [round(float(row[t]), 6) for row, t in zip(logprobs, new)],
            "top_logprobs": [[[int(t), round(float(v), 6)] for t, v in zip(top.indices[step], top.values[step])]
                             for step in range(min(8, len(new)))],
            "prompt_logprobs": [round(float(prompt_logprobs[i - 1][t]), 6) for i, t in enumerate(ids) if i]})
        if len(prompts) == 5:
            break
    check(len(prompts) == 5, f"{name}: only {len(prompts)} prompts with a clear winner at every step")
    folder = DATA / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "golden.json", {"made_by": "tools/golden.py", **versions(), "model": f"models/{NOVELISTS[name]}",
                                        "tolerance": TOLERANCE}, "prompts", prompts)
    if name == "novelist_14m":
        write_json(folder / "knobs.json", {"made_by": "tools/golden.py", **versions(), "model": f"models/{NOVELISTS[name]}"},
                   "outputs", record_knobs(model, tokenizer))
    save_file(tensors, folder / "golden.safetensors")
    print(f"{name:24} least lead {min(p['least_lead'] for p in prompts)}", flush=True)


@torch.no_grad()
def perplexity(model, tokenizer, documents, predictions, kv_dtype="fp32"):
    """Every token after the first is predicted once, in windows that overlap by one token."""
    window = PERPLEXITY_WINDOW
    stream = [token for document in documents for token in tokenizer(document)["input_ids"]]
    total = 0.0
    for begin in range(0, predictions, window):
        ids = torch.tensor(stream[begin:begin + window + 1])
        logits = forward(model, ids[:-1].tolist()) if kv_dtype == "fp32" else golden_quantised.logits_of(
            model, ids[:-1].tolist(), kv_dtype)
        total += float(torch.nn.functional.cross_entropy(logits.double(), ids[1:], reduction="sum"))
    return float(np.exp(total / predictions))


def record_perplexity():
    """Of the bundled models on the held-out novels; the first entry is quick, the last what docs/performance.md states."""
    documents = lzma.decompress((ROOT / "tests/data/text/novels-heldout.txt.xz").read_bytes()).decode().split("\0")
    entries = []
    for name, source in NOVELISTS.items():
        tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "models" / source)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            ROOT / "models" / source, dtype=torch.float32, attn_implementation="sdpa").eval()
        measured = [(predictions, "fp32") for predictions in PERPLEXITY_PREDICTIONS]
        if name == "novelist_14m":
            measured += [(PERPLEXITY_PREDICTIONS[0], kind) for kind in golden_quantised.KINDS]
        for predictions, kv_dtype in measured:
            value = perplexity(model, tokenizer, documents, predictions, kv_dtype)
            entries.append({"model": f"models/{source}", "window": PERPLEXITY_WINDOW, "tokens": predictions,
                            "kv_dtype": kv_dtype, "perplexity": round(value, 4)})
            print(f"{name:24} perplexity {value:.4f} over {predictions} predictions, {kv_dtype} cache", flush=True)
    write_json(DATA / "perplexity.json", {"made_by": "tools/golden.py", **versions()}, "entries", entries)


def main():
    names = [*CONFIGS, *NOVELISTS, "perplexity", "prompt_tables"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--beams", action="store_true", help="record beams.json alone")
    parser.add_argument("--quantised", action="store_true", help="record caches of 8 bits alone")
    arguments = parser.parse_args()
    wanted = arguments.names
    unknown = set(wanted) - set(names)
    check(not unknown, f"no model {' '.join(sorted(unknown))}; there are {' '.join(names)}")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    import golden_encdec  # which imports this file
    for name in wanted or names:
        if arguments.quantised:
            if name in golden_quantised.MODELS:
                record_quantised(name)
        elif arguments.beams:
            if name in CONFIGS:
                record_beams(name)
        elif name == "perplexity":
            record_perplexity()
        elif name == "prompt_tables":
            golden_prompt_tables.record(build_model, DATA, versions(), write_json, LEAD_MIN)
        elif name in CONFIGS and golden_encdec.handles(name):
            golden_encdec.record(name)
            record_beams(name)
        elif name in NOVELISTS:
            record_novelist(name)
        else:
            record_tiny(name)
            record_beams(name)
            if name in golden_quantised.MODELS:
                record_quantised(name)


if __name__ == "__main__":
    sys.exit(main())
