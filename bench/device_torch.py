#!/usr/bin/env python3
"""Whole models beside transformers: is Millrace's bf16 as near to fp32 as transformers' own bf16 is?

    MILLRACE=PROGRAM bench/device_torch.py MODEL [--device cuda] [--prompt 4096] [--new 256] [--layers 1,2,4,8,16] [--batch 1]

MODEL is a folder with a config.json; weights are generated (docs/dummy_weights.md) and rounded to bf16. Needs the program,
PyTorch and transformers 5. Prompts are random ids; in a batch each has 64 to --prompt of them. Three runs of the same tokens:

    reference   transformers in fp32, one layer's weights in memory at a time
    torch       transformers in bf16: the prompts at once, then one token of each a step; the tokens are those that Millrace chose
    millrace    `run --dtype bf16 --greedy`: the prompts, then --new tokens each, logits by --logits-file

One JSON line for each of: the logits of the prompts, those of the generated tokens, and the first prompt's with the first N of
the layers alone (where an error begins shows there). `error` is the root mean square of the difference from the reference, relative
to that of the reference; `worst` the largest difference in a row relative to the largest of its logits; `kl` the mean divergence
from the reference's distribution; `same_best` the share of rows with the same most likely token. The exit status is 1
where Millrace's error exceeds torch's by more than 5 %: both are rounded in other places, so their errors scatter.
"""
import argparse
import gc
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
import transformers
from safetensors import safe_open

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import torch_models

MOST_RATIO = 1.05
ROWS = 256  # of logits, that are compared at a time
SHORTEST = 64  # prompt of a batch


class LayerOutputs:
    """Keeps what given layers return."""

    def __init__(self, model, layers):
        self.states = {}
        for count in layers:
            model.model.layers[count - 1].register_forward_hook(lambda _m, _a, out, count=count: self.keep(count, out))

    def keep(self, count, out):
        self.states[count] = (out[0] if isinstance(out, tuple) else out).detach()


def head(model, states):
    """Logits in fp32 of the model cut off behind the layer that made `states` [1, T, H]."""
    logits = model.lm_head(model.model.norm(states))[0]
    cap = getattr(model.config, "final_logit_softcapping", None)
    return (torch.tanh(logits / cap) * cap if cap else logits).float()


def padded(sequences, device, left=False):
    """[B, T] ids, and which of them are the sequences'."""
    longest = max(map(len, sequences))
    sides = [([0] * (longest - len(s)), s) for s in sequences]
    ids = [pad + s if left else s + pad for pad, s in sides]
    own = [[0] * len(pad) + [1] * len(s) if left else [1] * len(s) + [0] * len(pad) for pad, s in sides]
    return torch.tensor(ids, device=device), torch.tensor(own, device=device)


def reference(folder, sequences, layers, device):
    """By number of layers: the norm's input in fp32 [B, T, H], of which a shorter sequence has the first rows; and the model,
    whose head is there."""
    model = torch_models.build(folder, torch.float32, device)
    stored = torch.bfloat16
    for name in ("embed_tokens", "norm"):
        torch_models.fill(getattr(model.model, name), f"model.{name}", stored, torch.float32, device)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    else:
        torch_models.fill(model.lm_head, "lm_head", stored, torch.float32, device)
    kept = LayerOutputs(model, layers)
    for i, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{i}"
        layer.register_forward_pre_hook(
            lambda m, _, prefix=prefix: torch_models.fill(m, prefix, stored, torch.float32, device))
        layer.register_forward_hook(lambda m, _a, _o: torch_models.drop(m))
    # What stands behind a sequence changes nothing in it.
    model.model(input_ids=padded(sequences, device)[0], use_cache=False)
    return model, kept.states


def bf16_run(folder, prompts, new, layers, device):
    """The model; by number of layers, the norm's input of the prompts [B, T, H], of which a shorter one has the last rows; the
    norm's input of each of the new tokens [B, N, H]."""
    model = torch_models.build(folder, torch.bfloat16, device)
    torch_models.fill(model, "", torch.bfloat16, torch.bfloat16, device)
    model.tie_weights()
    kept = LayerOutputs(model, layers)
    cache = transformers.DynamicCache(config=model.config)
    ids, own = padded(prompts, device, left=True)

    def forward(ids, own):
        positions = (own.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        model.model(input_ids=ids, attention_mask=own, position_ids=positions, past_key_values=cache, use_cache=True)

    forward(ids, own)
    states = dict(kept.states)
    last = max(layers)
    steps = [states[last][:, -1:]]
    for tokens in list(zip(*new))[:-1]:
        own = torch.cat([own, torch.ones_like(own[:, :1])], dim=1)
        forward(torch.tensor([tokens], device=device).T, own)
        steps.append(kept.states[last])
    return model, states, torch.cat(steps, dim=1)


def millrace(folder, sequences, new, layers, options, scratch):
    """The ids that follow each prompt and the file of logits, of the first `layers` layers."""
    config = json.loads((folder / "config.json").read_text())
    cut = scratch / f"layers{layers}"
    cut.mkdir()
    (cut / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    prompts, logits = scratch / "prompts.jsonl", cut / "logits.safetensors"
    prompts.write_text("".join(json.dumps({"input_ids": ids}) + "\n" for ids in sequences))
    command = [os.environ.get("MILLRACE", "build/millrace"), "run", cut, "--input-file", prompts, "--dummy-weights", "--dtype",
               "bf16", "--device", options.device, "--greedy", "--ignore-eos", "--max-new-tokens", str(new), "--max-batch-size",
               str(len(sequences)), "--max-seq-len", str(max(map(len, sequences)) + options.new), "--logits-file", logits, "--json",
               "--quiet", "--cache-dir", scratch / "cache"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}")
    return [json.loads(line)["outputs"][0]["output_ids"] for line in done.stdout.splitlines()], logits


class Distance:
    """Of rows of logits from the reference's."""

    def __init__(self):
        self.rows = self.squares = self.reference_squares = self.worst = self.divergence = self.same = 0

    def add(self, found, wanted):
        difference = (found - wanted).abs()
        self.rows += len(wanted)
        self.squares += difference.double().pow(2).sum().item()
        self.reference_squares += wanted.double().pow(2).sum().item()
        self.worst = max(self.worst, (difference.amax(1) / wanted.abs().amax(1)).max().item())
        p, q = wanted.log_softmax(1), found.log_softmax(1)
        self.divergence += (p.exp() * (p - q)).double().sum().item()
        self.same += (found.argmax(1) == wanted.argmax(1)).sum().item()

    def summary(self):
        return {"error": round((self.squares / self.reference_squares) ** 0.5, 7), "worst": round(self.worst, 5),
                "kl": round(self.divergence / self.rows, 9), "same_best": round(self.same / self.rows, 5)}


def compare(path, tensor, models, states, device):
    """One line: Millrace's rows and torch's, each from the reference. `states` are, of both, a list of [T, H], one a sequence."""
    exact, torch_model = models
    ours, theirs, between = Distance(), Distance(), Distance()
    with safe_open(path, "pt") as file:
        for i, (exact_states, torch_states) in enumerate(zip(*states)):
            stored = file.get_slice(f"{tensor}.{i}")
            rows = stored.get_shape()[0]
            if rows != len(exact_states) or rows != len(torch_states):
                raise SystemExit(f"{tensor}.{i} of {path} has {rows} rows, transformers {len(exact_states)} and {len(torch_states)}")
            for begin in range(0, rows, ROWS):
                part = slice(begin, min(begin + ROWS, rows))
                found = stored[part].to(device)
                wanted, peer = head(exact, exact_states[None, part]), head(torch_model, torch_states[None, part])
                ours.add(found, wanted)
                theirs.add(peer, wanted)
                between.add(found, peer)
    line = {"rows": ours.rows, "millrace": ours.summary(), "torch": theirs.summary(),
            "millrace_from_torch": between.summary()["error"]}
    line["ratio"] = round(line["millrace"]["error"] / line["torch"]["error"], 4)
    return line


def free(device):
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def missing_memory(folder, device):
    """What there is too little of for the model in bf16 and some room, or nothing."""
    if not device.startswith("cuda"):
        return None
    needed = 2 * sum(p.numel() for p in torch_models.build(folder, torch.bfloat16, "cpu").parameters()) + (16 << 30)
    there = torch.cuda.mem_get_info()[1]
    return None if needed <= there else f"needs {needed >> 30} GiB of GPU memory, there are {there >> 30}"


def measure(options, scratch):
    folder, device = pathlib.Path(options.model), options.device
    missing = missing_memory(folder, device)
    if missing:
        yield {"what": "skipped", "why": missing}
        return
    depth = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    layers = sorted({n for n in options.layers if n < depth})
    generator = torch.Generator().manual_seed(1)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    lengths = [options.prompt]
    if options.batch > 1:
        lengths = torch.randint(SHORTEST, options.prompt + 1, (options.batch,), generator=generator).tolist()
    prompts = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]

    start = time.monotonic()
    new, whole = millrace(folder, prompts, options.new, depth, options, scratch)
    first = prompts[0][: options.cut_prompt]
    cut = {n: millrace(folder, [first], 0, n, options, scratch)[1] for n in layers}
    spent = {"millrace_s": round(time.monotonic() - start, 1)}
    start = time.monotonic()
    sequences = [prompt + made[:-1] for prompt, made in zip(prompts, new)]
    exact, exact_states = reference(folder, sequences, [*layers, depth], device)
    free(device)
    spent["reference_s"] = round(time.monotonic() - start, 1)
    start = time.monotonic()
    peer, peer_states, peer_steps = bf16_run(folder, prompts, new, [*layers, depth], device)
    spent["torch_s"] = round(time.monotonic() - start, 1)

    models, last, peer_last = (exact, peer), exact_states[depth], peer_states[depth]
    whole_prompts = [s[:n] for s, n in zip(last, lengths)], [s[len(s) - n :] for s, n in zip(peer_last, lengths)]
    generated = [s[n - 1 : n - 1 + options.new] for s, n in zip(last, lengths)], list(peer_steps)
    yield {"what": "prompt", **compare(whole, "prompt_logits", models, whole_prompts, device)}
    yield {"what": "generated", **compare(whole, "logits", models, generated, device)}
    for n in layers:
        peers = peer_states[n][0]
        states = [exact_states[n][0][: len(first)]], [peers[len(peers) - lengths[0] :][: len(first)]]
        yield {"what": f"{n} of {depth} layers", **compare(cut[n], "prompt_logits", models, states, device)}
    yield {"what": "time", **spent, "generated_ids": len({token for made in new for token in made})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--prompt", type=int, default=4096)
    parser.add_argument("--cut-prompt", type=int, default=512, help="tokens of the prompt with fewer layers")
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1, help="prompts")
    parser.add_argument("--layers", type=lambda text: [int(n) for n in text.split(",")] if text else [], default="1,2,4,8,16")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    torch_models.check(options.device)
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for line in measure(options, pathlib.Path(scratch)):
            failed |= line.get("ratio", 0) > MOST_RATIO
            print(json.dumps({"model": pathlib.Path(options.model).name, "batch": options.batch, **line}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
